"""Where the EMA statistics say that each code stands: its sum over its count."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqdoctor.layouts.live_rows import is_unit, live_mask, never_written
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.geometry import Mask, middle, spread

AWAY = 0.1
"""A code stands elsewhere when it is farther from its sum over count than this share of the codes' spread."""


def ema_rows(view: QuantizerView) -> NDArray[np.float64] | None:
    """Return the sum over the count of every code, [K, D], under the layout's smoothing or none.

    A cosine codebook keeps only the direction of that. Of these rules the one is taken which more codes
    agree with. None where the layout stores no sums, or they were never written, or a value is not finite.
    """
    counts, sums = view.counts, view.sums
    if counts is None or sums is None or never_written(counts):
        return None
    if not (np.isfinite(counts).all() and np.isfinite(sums).all() and np.isfinite(view.codebook).all()):
        return None
    counts = counts.astype(np.float64)
    total, epsilon = counts.sum(), view.smoothing
    smoothed = (counts + epsilon) / (total + len(counts) * epsilon) * total
    tiny = np.finfo(np.float32).tiny
    rules = [sums / np.maximum(divisor, tiny)[:, None] for divisor in (smoothed, counts)]
    norms, _, live = live_mask(view)
    if is_unit(norms, live):
        rules.append(sums / np.maximum(np.linalg.norm(sums, axis=1), tiny)[:, None])
    return min(rules, key=lambda rows: middle(np.linalg.norm(rows - view.codebook, axis=1)))


def stale(view: QuantizerView, means: NDArray[np.float64]) -> Mask:
    """Return which codes stand elsewhere than `means` says, bool [K]."""
    live = live_mask(view)[2]
    bar = AWAY * (spread(view.codebook[live]) if live.any() else 0.0)
    return np.asarray(np.linalg.norm(means - view.codebook, axis=1) > bar)
