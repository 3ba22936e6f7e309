"""Lengths of codes and of the vectors that choose them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vqdoctor.capture.masks import MASKED
from vqdoctor.capture.reader import Codes, Reader, Vectors
from vqdoctor.capture.seen import Seen
from vqdoctor.core.evidence import Evidence, LookupScale, Unavailable
from vqdoctor.metrics.geometry import row_norms
from vqdoctor.metrics.match import nearest, unit
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.probe import Probe

AGREES = 0.9
"""Share of a layer's own choices that are the nearest codes, above which these are what it compares."""
MOST_VECTORS = 2**15
_WHY_NOT = "the layer's choices are not the codes nearest to the vectors that are seen"


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield the lengths that every layer compares, on all splits together."""
    measured = {}
    for view in context.views:
        reader = context.layers[view.name].reader
        seen = [layers[view.name] for layers in context.seen.values() if view.name in layers]
        if view.lookup == "logits" or not reader.has_codebook or reader.heads > 1:
            continue
        found = _asked(seen, reader)
        if found is not None:
            evidence = _scale(view.name, *found, reader)
            if evidence is not None:
                measured[view.name] = evidence
    yield from by_layer(context, LookupScale, measured, _WHY_NOT, by_gradient=False)


def _asked(seen: list[Seen], reader: Reader) -> tuple[Vectors, Codes] | None:
    """Return the vectors that explain the layer's own choices, and these; None where no vectors do.

    A layer may put z_e on the unit sphere before it looks up the nearest code.
    """
    if any(s.indices is None for s in seen) or not seen:
        return None
    parts = [s.asked for s in seen]
    if any(part.shape[1] != reader.view.dim for part in parts):
        return None
    vectors, chosen = np.concatenate(parts), np.concatenate([_codes(s) for s in seen])
    if len(vectors) != len(chosen) or not len(chosen) or not np.isfinite(vectors).all():
        return None
    every = max(1, len(vectors) // MOST_VECTORS)
    vectors, chosen = vectors[::every], chosen[::every]
    for compared in (vectors, unit(vectors)):
        own = nearest(compared, reader.view.codebook).indices == chosen
        if own.size and own.mean() > AGREES:
            return compared, chosen
    return None


def _codes(seen: Seen) -> Codes:
    assert seen.indices is not None
    return np.extract(seen.indices != MASKED, seen.indices)


def _scale(name: str, vectors: Vectors, chosen: Codes, reader: Reader) -> LookupScale | None:
    codes = reader.view.codebook[chosen].astype(np.float64)
    size = float(np.square(codes).sum())
    if size == 0:
        return None
    return LookupScale(
        layer=name,
        source="batch",
        sample_size=len(vectors),
        code_norm=float(np.median(row_norms(reader.view.codebook[np.unique(chosen)]))),
        vector_norm=float(np.median(row_norms(vectors))),
        factor=float((codes * vectors).sum()) / size,
    )


PROBE = Probe(kinds=(LookupScale,), measure=measure, mode="eval")
