"""Lengths of codes and of the vectors that choose them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vqdoctor.capture.reader import Codes, Reader, Vectors
from vqdoctor.capture.seen import Seen
from vqdoctor.core.evidence import Evidence, LookupScale, Unavailable
from vqdoctor.metrics.geometry import relative_range, row_norms
from vqdoctor.metrics.match import nearest, unit
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.model.data_match import asked_and_chosen
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
        if view.lookup == "logits" or reader.heads > 1:
            continue
        found = _asked(context.seen_of(view.name), reader)
        if found is not None:
            evidence = _scale(view.name, *found, reader)
            if evidence is not None:
                measured[view.name] = evidence
    yield from by_layer(context, LookupScale, measured, _WHY_NOT, by_gradient=False)


def _asked(seen: list[Seen], reader: Reader) -> tuple[Vectors, Codes] | None:
    """Return the vectors that explain the layer's own choices, and these; None where no vectors do.

    A layer may put z_e on the unit sphere before it looks up the nearest code. If the nearest direction
    explains its choices as well, it may compare angles, whatever the lengths.
    """
    found = asked_and_chosen(reader, seen)
    if found is None:
        return None
    vectors, chosen = found
    every = max(1, len(vectors) // MOST_VECTORS)
    vectors, chosen, codebook = vectors[::every], chosen[::every], reader.view.codebook
    as_seen, on_sphere = _agreement(vectors, codebook, chosen), _agreement(unit(vectors), codebook, chosen)
    if max(as_seen, on_sphere) <= AGREES:
        return None
    if as_seen >= on_sphere:
        return vectors, chosen
    return None if _agreement(vectors, unit(codebook), chosen) >= on_sphere else (unit(vectors), chosen)


def _agreement(vectors: Vectors, codebook: Vectors, chosen: Codes) -> float:
    """Return the share of vectors [N, D] whose nearest code [K, D] was chosen."""
    return float((nearest(vectors, codebook).indices == chosen).mean())


def _scale(name: str, vectors: Vectors, chosen: Codes, reader: Reader) -> LookupScale | None:
    codes = reader.view.codebook[chosen].astype(np.float64)
    size, lengths = float(np.square(codes).sum()), row_norms(vectors[_fair(chosen)])
    if size == 0:
        return None
    return LookupScale(
        layer=name,
        source="batch",
        sample_size=len(vectors),
        code_norm=float(np.median(row_norms(reader.view.codebook[np.unique(chosen)]))),
        vector_norm=float(np.median(lengths)),
        vector_spread=relative_range(lengths) if np.median(lengths) > 0 else 0.0,
        factor=float((codes * vectors).sum()) / size,
    )


def _fair(chosen: Codes) -> NDArray[np.intp]:
    """Return which vectors count where no code does for more than its fair share: padding is one vector."""
    order = np.argsort(chosen, kind="stable")
    ordered = chosen[order]
    number = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    return order[number < max(1, len(ordered) // len(np.unique(ordered)))]


PROBE = Probe(kinds=(LookupScale,), measure=measure, mode="eval")
