"""The codes that a layer chose, beside the nearest ones, the farthest and those with the largest product."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vqdoctor.capture.reader import Codes, Vectors
from vqdoctor.core.evidence import CodeChoice, Evidence, Unavailable
from vqdoctor.layouts.view import Array
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.model.data_match import asked_and_chosen
from vqdoctor.probes.probe import Probe

MOST = 4_096
"""Vectors that are compared with the codes."""
_PAIRS = 1 << 24
"""Pairs of vector and code at the most: fewer vectors are compared with more than 4,096 codes."""
_AT_A_TIME = 1 << 20
"""Distances in memory: 8 MiB."""
_WHY_NOT = "the layer's vectors or its own choices are not seen, or it puts out other codes than it stores"


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield how every layer chooses whose vectors and indices are seen."""
    measured = {}
    for view in context.views:
        reader = context.layers[view.name].reader
        seen = context.seen_of(view.name)
        if view.lookup == "logits" or reader.heads > 1 or any(s.as_stored is False for s in seen):
            continue  # a map between the table and the lookup may turn every code round
        found = asked_and_chosen(reader, seen)
        if found is not None:
            vectors, chosen = found
            every = -(-len(vectors) // max(1, min(MOST, _PAIRS // view.num_codes)))
            measured[view.name] = _choice(vectors[::every], chosen[::every], view.codebook)
    yield from by_layer(context, CodeChoice, measured, _WHY_NOT, by_gradient=False)


def _choice(vectors: Vectors, chosen: Codes, codebook: Array) -> CodeChoice:
    """Compare the choices [N] for vectors [N, D] with the codebook [K, D]."""
    codes, right = codebook.astype(np.float64), np.zeros(4)
    squares = np.square(codes).sum(axis=1)
    lengths = np.maximum(np.sqrt(squares), np.finfo(np.float32).tiny)
    step = max(1, _AT_A_TIME // len(codes))
    for at in range(0, len(vectors), step):
        products = vectors[at : at + step].astype(np.float64) @ codes.T
        distances = squares - 2 * products  # less |z|^2, which all codes share
        directions = products / lengths  # times |z|, which all codes share
        found = (
            distances.argmin(axis=1),
            distances.argmax(axis=1),
            products.argmax(axis=1),
            directions.argmax(axis=1),
        )
        right += [np.sum(codes_found == chosen[at : at + step]) for codes_found in found]
    nearest, farthest, product, direction = (right / len(vectors)).tolist()
    return CodeChoice(
        source="batch",
        sample_size=len(vectors),
        nearest=nearest,
        farthest=farthest,
        product=product,
        direction=direction,
    )


PROBE = Probe(kinds=(CodeChoice,), measure=measure, mode="eval")
