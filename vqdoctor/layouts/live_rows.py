"""Which rows of a codebook are alive, for the probes of a file and of a dump."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqdoctor.layouts.view import QuantizerView, once_a_view
from vqdoctor.metrics.geometry import Mask, live_median, live_rows, row_norms

RARE = 1e-3
"""A code under this share of the mean count was not chosen lately."""
START_COUNTS = (0.0, 1.0)
"""EMA counts that libraries start from; every layout here has one of the two."""
_UNIT = 1e-3
_EXACT = 2.0**23
"""A float32 from which on all numbers are whole."""


@once_a_view
def live_mask(view: QuantizerView) -> tuple[NDArray[np.float64], float, Mask]:
    """Return the row norms of a finite codebook, the live rows' median norm, and which rows are live.

    EMA counts, where they were written, say which rows to take the median of.
    """
    norms = row_norms(view.codebook)
    used = chosen_lately(view.counts)
    median = live_median(norms, used)
    return norms, median, live_rows(norms, median)


def chosen_lately(counts: NDArray[np.float32] | None) -> Mask | None:
    """Return which codes' counts are not rare; None where counts are missing, broken or constant."""
    if counts is None or not np.isfinite(counts).all() or never_written(counts):
        return None
    return np.asarray(counts > RARE * counts.mean(dtype=np.float64))


def never_written(counts: NDArray[np.float32]) -> bool:
    """Whether all counts are at the value that libraries start from, as they leave them without an update.

    One is told apart from "perfectly even": no training gives K equal floats.
    """
    return _tied(counts) and _is_start(counts)


def _tied(counts: NDArray[np.float32] | NDArray[np.float64]) -> bool:
    return len(counts) > 1 and bool((counts == counts[0]).all())


def _is_start(counts: NDArray[np.float32] | NDArray[np.float64]) -> bool:
    """Whether the first count is one that libraries start from: shares of the usage start at 1/K."""
    return counts[0] in START_COUNTS or bool(np.isclose(counts[0] * len(counts), 1.0, rtol=1e-6))


def counted(counts: NDArray[np.float32]) -> bool:
    """Whether all counts are whole numbers, as k-means on vectors leaves them, and no decaying update does.

    Equal ones are the start, or what a revival of all codes sets.
    """
    return bool((counts == np.rint(counts)).all() and np.abs(counts).max() < _EXACT) and not _tied(counts)


def reset_to(counts: NDArray[np.float32] | NDArray[np.float64]) -> float | None:
    """Return the count that all codes share and that no library starts from; None where there is none.

    A revival sets the count of each code that it replaces to its threshold. Where it replaces every code at
    every step, all are there.
    """
    return float(counts[0]) if _tied(counts) and not _is_start(counts) else None


def is_unit(norms: NDArray[np.float64], live: Mask) -> bool:
    """Return whether every live row has norm one: a cosine codebook."""
    return bool(live.any() and (np.abs(norms[live] - 1) < _UNIT).all())
