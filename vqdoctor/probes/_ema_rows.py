"""Where the EMA statistics say that each code stands: its sum over its count."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqdoctor.layouts.live_rows import is_unit, live_mask, never_written
from vqdoctor.layouts.view import Array, QuantizerView
from vqdoctor.metrics.ema_relation import SMOOTHINGS, far_above_smoothing
from vqdoctor.metrics.geometry import Mask, middle, spread
from vqdoctor.vq.ema import divisor

AWAY = 0.1
"""A code stands elsewhere when it is farther from its sum over count than this share of the codes' spread."""


def ema_rows(view: QuantizerView) -> NDArray[np.float64] | None:
    """Return the sum over the count of every code, [K, D], under the rule that most codes agree with.

    None where the layout stores no sums, or they were never written, or a value is not finite.
    """
    counts, sums = view.counts, view.sums
    if counts is None or sums is None or never_written(counts):
        return None
    if not (np.isfinite(counts).all() and np.isfinite(sums).all() and np.isfinite(view.codebook).all()):
        return None

    def disagreement(rows: NDArray[np.float64]) -> tuple[int, float]:
        return int(stale(view, rows).sum()), middle(np.linalg.norm(rows - view.codebook, axis=1))

    return min(means_by_rule(view, counts, sums), key=disagreement)


def means_by_rule(view: QuantizerView, counts: Array, sums: Array) -> list[NDArray[np.float64]]:
    """Return the codes [K, D] as finite sums and counts tell them, by every rule that libraries follow.

    Libraries divide by the smoothed counts, with one of a few epsilons, whatever the layout says: copies
    change it. Some store the counts smoothed already, and a cosine codebook keeps only the direction of its
    mean.
    """
    plain, whole = counts.astype(np.float64), sums.astype(np.float64)
    smoothings = dict.fromkeys((view.smoothing or 0.0, 0.0, *SMOOTHINGS))
    divisors = [divisor(plain, smoothing) for smoothing in smoothings]
    norms, _, live = live_mask(view)
    if is_unit(norms, live):
        divisors.append(np.linalg.norm(whole, axis=1))
    return [whole / np.maximum(by, np.finfo(np.float32).tiny)[:, None] for by in divisors]


def stale(view: QuantizerView, means: NDArray[np.float64]) -> Mask:
    """Return which codes stand elsewhere than `means` says, bool [K].

    The smoothing decides how long a code is that is hardly ever chosen. So such a code must point elsewhere,
    and where the layout does not tell the smoothing, it is not judged at all.
    """
    live = live_mask(view)[2]
    bar = AWAY * (spread(view.codebook[live]) if live.any() else 0.0)
    away = np.linalg.norm(means - view.codebook, axis=1) > bar
    if view.counts is None:
        return np.asarray(away)
    far = far_above_smoothing(view.counts)
    if view.smoothing is None:
        return np.asarray(away & far)
    lengths = np.linalg.norm(means, axis=1) * np.linalg.norm(view.codebook, axis=1)
    aligned = np.einsum("kd,kd->k", means, view.codebook.astype(np.float64)) > (1 - AWAY**2) * lengths
    return np.asarray(away & (far | ~aligned))
