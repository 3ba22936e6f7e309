"""Which rows of a codebook are alive, for the probes of a file and of a dump."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.geometry import Mask, live_median, live_rows, row_norms

RARE = 1e-3
"""A code under this share of the mean count was not chosen lately."""
_UNIT = 1e-3


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
    """Whether all counts are one and the same value, as a library leaves them that never updates them.

    One is told apart from "perfectly even": no training gives K equal floats.
    """
    return len(counts) > 1 and bool((counts == counts[0]).all())


def is_unit(norms: NDArray[np.float64], live: Mask) -> bool:
    """Return whether every live row has norm one: a cosine codebook."""
    return bool(live.any() and (np.abs(norms[live] - 1) < _UNIT).all())
