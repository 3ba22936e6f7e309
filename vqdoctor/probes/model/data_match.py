"""The z_e that the encoder gives in eval mode, against the codebook."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import numpy as np

from vqdoctor.capture.reader import Codes, Vectors
from vqdoctor.capture.seen import Seen
from vqdoctor.core.evidence import DataMatch, Evidence, Unavailable
from vqdoctor.metrics.match import match, nearest
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.probe import Probe

WHY_NOT = (
    "the vectors that the codebook is asked for are not seen, are constant or not finite, or are not "
    "compared with the codebook as it is stored"
)
AGREES = 0.5
"""Share of a layer's own choices that are the nearest stored code, above which it compares with these."""


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield how every layer's codebook lies to its z_e, on all splits together."""
    measured = {}
    for view in context.views:
        reader = context.layers[view.name].reader
        seen = [layers[view.name] for layers in context.seen.values() if view.name in layers]
        vectors = _vectors(seen, view.dim)
        if vectors is None or view.lookup == "logits" or not reader.has_codebook:
            continue
        vectors, codebook = reader.as_compared(vectors), reader.as_compared(view.codebook)
        found = nearest(vectors, codebook)
        if _transformed(seen, found.indices):
            continue
        numbers = match(vectors, codebook, found)
        if numbers is not None:
            measured[view.name] = DataMatch(
                layer=view.name, source="batch", sample_size=len(vectors), **asdict(numbers)
            )
    yield from by_layer(context, DataMatch, measured, WHY_NOT, by_gradient=False)


def asked_vectors(context: ModelContext) -> dict[str, Vectors]:
    """Return the vectors [N, D] that each codebook is asked for: those of the train split, else of all.

    Layers are left out whose vectors are not seen, or that compare them with something else than the stored
    codes.
    """
    found = {}
    for view in context.views:
        by_split = {split: layers[view.name] for split, layers in context.seen.items() if view.name in layers}
        seen = [by_split["train"]] if "train" in by_split else list(by_split.values())
        reader, vectors = context.layers[view.name].reader, _vectors(seen, view.dim)
        if vectors is None or not reader.has_codebook:
            continue
        nearest_codes = nearest(reader.as_compared(vectors), reader.as_compared(view.codebook)).indices
        if not _transformed(seen, nearest_codes):
            found[view.name] = vectors
    return found


def _vectors(seen: list[Seen], dim: int) -> Vectors | None:
    """Return the finite vectors that the codebook is asked for; None where they are not seen."""
    parts = [s.z_e.reshape(-1, s.z_e.shape[-1]) if s.looked_up is None else s.looked_up for s in seen]
    if not parts or any(part.shape[1] != dim for part in parts):
        return None
    vectors = np.concatenate(parts)
    return vectors if len(vectors) and np.isfinite(vectors).all() else None


def _transformed(seen: list[Seen], nearest_codes: Codes) -> bool:
    """Whether the layer chooses among other codes than the stored ones.

    An affine or neural map between the codebook and the lookup is part of the layer, and distances to what
    is stored then mean nothing: another code is chosen than the nearest, and another put out than the stored.
    """
    own = [s.indices.ravel() for s in seen if s.indices is not None]
    if len(own) < len(seen) or all(s.as_stored is not False for s in seen):
        return False
    chosen = np.concatenate(own)
    return len(chosen) == len(nearest_codes) and bool((chosen == nearest_codes).mean() < AGREES)


PROBE = Probe(kinds=(DataMatch,), measure=measure, mode="eval")
