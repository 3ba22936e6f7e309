"""Which codes the model chooses in eval mode, on all splits together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqdoctor.capture.masks import MASKED
from vqdoctor.capture.observe import SPLITS
from vqdoctor.capture.reader import Codes
from vqdoctor.core.evidence import Usage
from vqdoctor.models.task import Split
from vqdoctor.probes._usage import usage_from_indices
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import each_layer

SAME = 1e-4
"""Relative difference up to which two splits' moments are the same: far above float32's rounding, far
below the 1/sqrt(N) by which samples differ."""


def measure(context: ModelContext) -> dict[str, Usage]:
    """Return the usage of every layer."""
    by_split = [(context.codes(split), context.rows_of(split)) for split in _distinct(context)]
    measured = {}
    for view in context.views:
        parts = [(codes[view.name], rows[view.name]) for codes, rows in by_split if view.name in codes]
        chosen, samples = _together(parts)
        if len(chosen):
            measured[view.name] = usage_from_indices(
                chosen,
                view.num_codes,
                layer=view.name,
                groups=samples,
                histogram=context.histogram,
                seed=context.seed,
            ).replace(implicit=not view.keys)
    return measured


def _together(parts: list[tuple[Codes, Codes]]) -> tuple[Codes, Codes]:
    """Return all codes that are not masked, and for each the sample that it comes from."""
    chosen, samples, first = [], [], 0
    for codes, row_samples in parts:
        of = np.repeat(first + row_samples, codes.shape[1])
        kept = codes.ravel() != MASKED
        chosen.append(codes.ravel()[kept])
        samples.append(of[kept])
        first += int(row_samples[-1]) + 1
    none = np.zeros(0, dtype=np.int64)
    return np.concatenate([none, *chosen]), np.concatenate([none, *samples])


def _distinct(context: ModelContext) -> list[Split]:
    """Return the splits with data of their own, since data counted twice would feign certainty.

    Many a Task serves the same data for every split, perhaps shuffled: then z_e has the same mean and
    spread in every dimension, up to rounding.
    """
    found: dict[Split, tuple[int, NDArray[np.float64], NDArray[np.float64]]] = {}
    for split, layers in context.seen.items():
        z_e = next(iter(layers.values())).z_e
        vectors = z_e.reshape(-1, z_e.shape[-1])
        size, mean, spread = len(vectors), vectors.mean(0, dtype=np.float64), vectors.std(0, dtype=np.float64)
        if not any(
            size == n and np.allclose(mean, m, atol=SAME * s.max()) and np.allclose(spread, s, rtol=SAME)
            for n, m, s in found.values()
        ):
            found[split] = size, mean, spread
    bare: dict[bytes, Split] = {}  # of layers of which the codes alone are seen
    for split in SPLITS if not found else ():
        if codes := context.codes(split):
            bare.setdefault(np.sort(next(iter(codes.values())), axis=None).tobytes(), split)
    return list(found) or list(bare.values())


WHY_NOT = "the layer gives no indices, and z_e has another dimension"
PROBE = each_layer(Usage, measure, WHY_NOT, mode="eval", by_gradient=False, needs_codebook=False)
