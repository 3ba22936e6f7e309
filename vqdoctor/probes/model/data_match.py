"""The z_e that the encoder gives in eval mode, against the codebook."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from vqdoctor.capture.call import Call
from vqdoctor.capture.discover import BY_OUTPUT
from vqdoctor.capture.reader import Codes, Reader, Vectors
from vqdoctor.capture.seen import Seen
from vqdoctor.capture.vectors import rows
from vqdoctor.core.evidence import DataMatch
from vqdoctor.metrics.match import Assignment, match, nearest
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import each_layer

WHY_NOT = (
    "the vectors that the codebook is asked for are not seen, are constant or not finite, or are not "
    "compared with the codebook as it is stored"
)
AGREES = 0.5
"""Share of a layer's own choices that are the nearest stored code, above which it compares with these."""


def measure(context: ModelContext) -> dict[str, DataMatch]:
    """Return how every layer's codebook lies to its z_e, on all splits together."""
    measured = {}
    for name, layer in context.layers.items():
        seen = context.seen_of(name)
        vectors = None if layer.view.lookup == "logits" else asked(layer.reader, seen)
        if vectors is None:
            continue
        if transformed(layer.reader, seen):
            continue
        numbers = match(*nearest_of(layer.reader, vectors))
        if numbers is not None:
            measured[name] = DataMatch(source="batch", sample_size=len(vectors), **asdict(numbers))
    return measured


def asked_vectors(context: ModelContext) -> dict[str, Vectors]:
    """Return the vectors [N, D] that each codebook is asked for: those of the train split, else of all.

    Layers are left out whose vectors are not seen, or that compare them with something else than the stored
    codes.
    """
    found = {}
    for name, layer in context.layers.items():
        by_split = {split: layers[name] for split, layers in context.seen.items() if name in layers}
        seen = [by_split["train"]] if "train" in by_split else list(by_split.values())
        vectors = asked(layer.reader, seen)
        if vectors is not None and not transformed(layer.reader, seen):
            found[name] = vectors
    return found


def nearest_of(reader: Reader, vectors: Vectors) -> tuple[Vectors, Vectors, Assignment]:
    """Return the vectors and the codebook as they are compared, and each vector's nearest code."""
    compared, codebook = reader.as_compared(vectors), reader.as_compared(reader.view.codebook)
    return compared, codebook, nearest(compared, codebook)


def asked(reader: Reader, seen: list[Seen]) -> Vectors | None:
    """Return the finite vectors that a finite codebook is asked for; None where they are not seen."""
    if not reader.has_codebook:
        return None
    parts = [s.asked for s in seen]
    if not parts or any(part.shape[1] != reader.view.dim for part in parts):
        return None
    vectors = np.concatenate(parts)
    return vectors if len(vectors) and np.isfinite(vectors).all() else None


def asked_and_chosen(reader: Reader, seen: list[Seen]) -> tuple[Vectors, Codes] | None:
    """Return the vectors [N, D] that a codebook is asked for, and the codes [N] that the layer itself chose.

    None where they are not seen, or do not belong together.
    """
    vectors = asked(reader, seen)
    pairs = [pair for s in seen if (pair := s.asked_and_chosen) is not None]
    if vectors is None or len(pairs) < len(seen):
        return None
    return vectors, np.concatenate([chosen for _, chosen in pairs])


def transformed(reader: Reader, seen: list[Seen]) -> bool:
    """Whether the layer chooses among other codes than the stored ones.

    An affine or neural map between the codebook and the lookup is part of the layer, and distances to what
    is stored then mean nothing: another code is chosen than the nearest, and another put out than the stored.
    Of several codebooks in one module each may get another input, such as what the ones before it leave. A
    layer that only its output shows may choose in any way, such as by logits.
    """
    found = asked_and_chosen(reader, seen)
    by_table = reader.view.layout != BY_OUTPUT and reader.heads == 1
    if found is None or (by_table and all(s.as_stored is not False for s in seen)):
        return False
    vectors, chosen = found
    return bool((chosen == nearest_of(reader, vectors)[2].indices).mean() < AGREES)


def takes_nearest(reader: Reader, call: Call) -> bool:
    """Return whether a call's codes are the nearest to its input: else it has a map or logits of its own.

    Codebooks that see one input each in a way of their own each add a part, and the sum of their codes is
    meant (Shu and Nakayama 2018, arXiv:1711.01068).
    """
    closest = reader.nearest(rows(call.z_e, reader.axis(call)).detach().float().cpu().numpy())
    chosen = reader.codes(call)
    if closest is None or chosen is None or closest.shape != chosen.shape:
        return False
    return bool((closest == chosen).mean() >= AGREES)


PROBE = each_layer(DataMatch, measure, WHY_NOT, mode="eval", by_gradient=False)
