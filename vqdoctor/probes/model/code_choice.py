"""The codes that a layer chose, beside the nearest ones, the farthest and those with the largest product."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vqdoctor.capture.masks import MASKED
from vqdoctor.capture.reader import Codes, Vectors
from vqdoctor.core.evidence import CodeChoice, Evidence, Unavailable
from vqdoctor.layouts.view import Array
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.probe import Probe

MOST = 4_096
"""Vectors that are compared with the codes."""
_PAIRS = 1 << 24
"""Pairs of vector and code at the most: fewer vectors are compared with more than 4,096 codes."""
_AT_A_TIME = 1 << 20
"""Distances in memory: 8 MiB."""
_WHY_NOT = "the layer's vectors or its own choices are not seen"


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield how every layer chooses whose vectors and indices are seen."""
    measured = {}
    for view in context.views:
        reader = context.layers[view.name].reader
        seen = [layers[view.name] for layers in context.seen.values() if view.name in layers]
        if view.lookup == "logits" or not reader.has_codebook or reader.heads > 1 or not seen:
            continue
        own = [s.indices[s.indices != MASKED] for s in seen if s.indices is not None]
        asked = [s.asked for s in seen]
        finite = np.isfinite(view.codebook).all()
        if not finite or len(own) < len(seen) or any(part.shape[1] != view.dim for part in asked):
            continue
        vectors, chosen = np.concatenate(asked), np.concatenate(own)
        if len(vectors) == len(chosen) and len(chosen) and np.isfinite(vectors).all():
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
