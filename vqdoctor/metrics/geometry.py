"""The rows of a codebook, or of z_e, as points: norms, live rows, spread, duplicates, effective rank."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqdoctor.metrics.entropy import Floats, Ints, plug_in_entropy

Rows = NDArray[np.float32]
Mask = NDArray[np.bool_]

ZERO_SHARE = 1e-6
"""A row under this share of the live median norm counts as zero."""
OVERSIZE = 100.0
"""A row over this many times the live median norm is blown up."""
COPY = 1e-3
"""Rows nearer to each other than this share of the rows' spread are copies."""
_DUST = 1e-9
_PROJECTIONS = 8


def row_norms(rows: Rows) -> Floats:
    """Return the Euclidean norms [K] of `rows` [K, D], summed in float64."""
    return np.asarray(np.sqrt(np.einsum("kd,kd->k", rows, rows, dtype=np.float64)))


def live_median(norms: Floats, used: Mask | None = None) -> float:
    """Return the median norm of the live rows; 0 where there is none.

    Dead rows are either huge (sums divided by a count of nearly zero) or decayed to dust, and can
    be the majority. So where `used` [K] tells which codes are chosen, only these are taken, else
    the rows above 1e-9 of the largest.

    >>> live_median(np.array([1.0, 2.0, 3.0, 1e-12]))
    2.0
    """
    live = norms > _DUST * norms.max(initial=0.0)
    if used is not None and (used & live).any():
        live = used & (norms > 0)
    return middle(norms[live]) if live.any() else 0.0


def live_rows(norms: Floats, median: float) -> Mask:
    """Return which rows are neither zero nor blown up, bool [K]."""
    return (norms > 0) & (norms >= ZERO_SHARE * median) & (norms <= OVERSIZE * median)


def middle(values: Floats) -> float:
    """Return the median of `values` [N], N > 0: np.median loads numpy.ma, a fiftieth of a run without data.

    >>> middle(np.array([3.0, 1.0, 2.0, 10.0]))
    2.5
    """
    ordered = np.sort(values)  # NaN last
    two = ordered[[(len(ordered) - 1) // 2, len(ordered) // 2]]
    return float(ordered[-1] if np.isnan(ordered[-1]) else two.mean())


def relative_range(values: Floats) -> float:
    """Return the interquartile range of positive `values` [N], N > 0, over their median.

    >>> relative_range(np.array([1.0, 2.0, 4.0, 6.0, 9.0]))
    1.0
    """
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float((high - low) / middle)


def spread(rows: Rows) -> float:
    """Return the root mean square distance of a row to the mean row: sqrt of the total variance."""
    return float(np.sqrt(rows.var(axis=0, dtype=np.float64).sum())) if len(rows) else 0.0


def effective_rank(rows: Rows) -> float:
    """Return exp of the entropy of the normalised squared singular values of the CENTRED rows.

    Without centring, a large common offset would make every codebook look one-dimensional. 0 where
    all rows are equal. Roy & Vetterli 2007, "The effective rank", with squared singular values.

    >>> round(effective_rank(np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], dtype=np.float32)), 6)
    2.0
    """
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    small = centred.T @ centred if rows.shape[1] <= rows.shape[0] else centred @ centred.T
    values = np.maximum(np.linalg.eigvalsh(small), 0.0)
    # Rounding leaves about machine epsilon × the squared offset where the variance is nil.
    if values.sum() <= 1e-14 * float(np.square(rows, dtype=np.float64).sum()):
        return 0.0
    return float(np.exp(plug_in_entropy(values)))


def init_box_rows(rows: Rows) -> int:
    """Return how many of `rows` [K, D] lie within ±1/K in every dimension, as U(±1/K) starts them.

    Rows that are zero, or have decayed to under 1e-6/K, are no longer where they started.
    """
    largest = np.abs(rows).max(axis=1)
    return int(np.sum((largest <= 1 / len(rows)) & (largest >= ZERO_SHARE / len(rows))))


def faded_rows(rows: Rows) -> Mask:
    """Return which of `rows` [K, D] are as near to zero as copies are to each other, bool [K].

    An EMA lets codes that are never chosen fade to zero; there they look alike without being copies.
    """
    return np.asarray(row_norms(rows) <= COPY * spread(rows))


def duplicate_rows(rows: Rows, tolerance: float, seed: int = 0) -> int:
    """Return how many of `rows` [K, D] lie within `tolerance` of another one that is kept: see `copies`."""
    return int(copies(rows, tolerance, seed).sum())


def copies(rows: Rows, tolerance: float, seed: int = 0) -> Mask:
    """Return which of `rows` [K, D] lie within `tolerance` of an earlier row, bool [K].

    Rows are sorted along a random direction, in which close rows stay close, so only neighbours in
    that order are compared: about K · (neighbours within the tolerance), never K². "Earlier" is in
    that order; a row that is counted is not compared again. Of equal rows the first is kept.
    """
    exact, first = np.unique(rows, axis=0, return_index=True)
    copied = np.ones(len(rows), dtype=bool)
    copied[first] = False
    rng = np.random.default_rng(seed)
    axes = rng.standard_normal((rows.shape[1], _PROJECTIONS))
    axes /= np.linalg.norm(axes, axis=0)
    shadow = exact.astype(np.float64) @ axes
    order = np.argsort(shadow[:, 0])
    exact, shadow, first = exact[order], shadow[order], first[order]
    slack = tolerance + 1e-6 * float(np.abs(shadow).max(initial=0.0))  # float32 rows, rounded once
    step = 1
    while step < len(exact):
        near = np.flatnonzero(shadow[step:, 0] - shadow[:-step, 0] <= slack)
        if not near.size:
            break
        near = near[(np.abs(shadow[near + step] - shadow[near]) <= slack).all(axis=1)]
        gap = row_norms(exact[near + step] - exact[near])
        close = near[gap <= tolerance] + step
        if close.size:
            copied[first[close]] = True
            exact, shadow = np.delete(exact, close, axis=0), np.delete(shadow, close, axis=0)
            first = np.delete(first, close)
        else:
            step += 1
    return copied


def histogram_quantiles(counts: Floats | Ints, points: int = 33) -> tuple[float, ...]:
    """Return the sorted counts at `points` evenly spaced quantiles from 0 to 1, least first.

    >>> histogram_quantiles(np.array([4.0, 1.0, 9.0]), points=3)
    (1.0, 4.0, 9.0)
    """
    ordered = np.sort(counts)
    at = np.rint(np.linspace(0, len(ordered) - 1, points)).astype(np.int64)
    return tuple(float(value) for value in ordered[at])
