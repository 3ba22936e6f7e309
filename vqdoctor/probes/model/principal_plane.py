"""The z_e that the encoder gives in eval mode, and the codes, in two principal components."""

from __future__ import annotations

import numpy as np

from vqdoctor.core.evidence import PrincipalPlane
from vqdoctor.probes._plane import plane
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import each_layer
from vqdoctor.probes.model.data_match import WHY_NOT, asked, transformed


def measure(context: ModelContext) -> dict[str, PrincipalPlane]:
    """Return the plane of every layer, on all splits together."""
    measured = {}
    for name, layer in context.layers.items():
        seen = context.seen_of(name)
        vectors, chosen = asked(layer.reader, seen), context.all_codes(name)
        if vectors is not None and len(chosen) and not transformed(layer.reader, seen):
            measured[name] = plane(
                layer.reader.as_compared(layer.view.codebook),
                np.bincount(chosen, minlength=layer.view.num_codes),
                source="batch",
                vectors=layer.reader.as_compared(vectors),
                seed=context.seed,
            )
    return measured


PROBE = each_layer(PrincipalPlane, measure, WHY_NOT, mode="eval", by_gradient=False)
