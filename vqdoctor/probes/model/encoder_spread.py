"""The spread of z_e, beside the spread of the samples that it is made of."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from vqdoctor.core.evidence import EncoderSpread
from vqdoctor.metrics.geometry import effective_rank, spread
from vqdoctor.models.tensors import tensors_of
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import each_layer

MOST_BATCHES = 64
MOST_SAMPLES = 1024
"""Samples that are looked at: their effective rank takes the cube of their number."""


def measure(context: ModelContext) -> dict[str, EncoderSpread]:
    """Return, for every layer, the spread of z_e on all splits, and of the training samples."""
    samples = _samples(context)
    measured = {}
    for view in context.views:
        vectors = context.all_z_e(view.name)
        if vectors is not None and np.isfinite(vectors).all():
            measured[view.name] = EncoderSpread(
                source="batch",
                sample_size=len(vectors),
                output_spread=_relative(vectors),
                input_spread=None if samples is None else _relative(samples),
                input_rank=None if samples is None else effective_rank(samples),
                samples=0 if samples is None else len(samples),
            )
    return measured


def _samples(context: ModelContext) -> NDArray[np.float32] | None:
    """Return the first tensor of the training batches as one row per sample; None where there is none."""
    rows: list[NDArray[np.float32]] = []
    for batch in itertools.islice(context.task.batches("train"), MOST_BATCHES):
        x = next((t for t in tensors_of(batch) if t.ndim > 1), None)
        if x is None or (rows and rows[0].shape[1] != x[0].numel()) or sum(map(len, rows)) >= MOST_SAMPLES:
            break
        rows.append(x.detach().float().reshape(len(x), -1).cpu().numpy())
    found = np.concatenate(rows)[:MOST_SAMPLES] if rows else None
    return found if found is not None and len(found) > 1 and np.isfinite(found).all() else None


def _relative(rows: NDArray[np.float32]) -> float:
    """Return the root mean square distance to the mean row over the root mean square length; 0 for zeros."""
    length = float(np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1).mean()))
    return spread(rows) / length if length else 0.0


PROBE = each_layer(EncoderSpread, measure, "z_e is not finite", mode="eval", needs_codebook=False)
