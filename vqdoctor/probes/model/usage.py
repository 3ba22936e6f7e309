"""Which codes the model chooses in eval mode, on all splits together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vqdoctor.core.evidence import Evidence, Unavailable, Usage
from vqdoctor.probes._usage import usage_from_indices
from vqdoctor.probes.model._context import SPLITS, ModelContext
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.probe import Probe


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield the usage of every layer."""
    by_split = [context.codes(split) for split in SPLITS]
    measured = {}
    for view in context.views:
        parts = [codes[view.name] for codes in by_split if view.name in codes]
        if parts:
            sizes = np.concatenate([np.full(len(part), part.shape[1]) for part in parts])
            measured[view.name] = usage_from_indices(
                np.concatenate([part.ravel() for part in parts]),
                view.num_codes,
                layer=view.name,
                groups=np.repeat(np.arange(len(sizes)), sizes),
                active_share=context.active_share,
                histogram=context.histogram,
                seed=context.seed,
            )
    yield from by_layer(context, Usage, measured, "the layer gives no indices, and z_e has another dimension")


PROBE = Probe(kinds=(Usage,), measure=measure)
