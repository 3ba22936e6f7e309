"""The z_e that the encoder gives in eval mode, against the codebook."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import numpy as np

from vqdoctor.core.evidence import DataMatch, Evidence, Unavailable
from vqdoctor.metrics.match import match, nearest, unit
from vqdoctor.probes._rows import is_unit, live_mask
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.probe import Probe


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield how every layer's codebook lies to its z_e, on all splits together."""
    measured = {}
    for view in context.views:
        parts = [layers[view.name].z_e for layers in context.seen.values() if view.name in layers]
        vectors = np.concatenate([part.reshape(-1, part.shape[-1]) for part in parts]) if parts else None
        if vectors is None or vectors.shape[1] != view.dim or not np.isfinite(view.codebook).all():
            continue
        norms, _, live = live_mask(view)
        rows = unit(vectors) if is_unit(norms, live) else vectors
        numbers = match(rows, view.codebook, nearest(rows, view.codebook))
        if numbers is not None:
            measured[view.name] = DataMatch(
                layer=view.name, source="batch", sample_size=len(rows), **asdict(numbers)
            )
    yield from by_layer(context, DataMatch, measured, "z_e has another dimension, is constant or not finite")


PROBE = Probe(kinds=(DataMatch,), measure=measure)
