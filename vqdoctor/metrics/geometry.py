"""The rows of a codebook, or of z_e, as points: norms, live rows, spread, duplicates, effective rank."""

from __future__ import annotations

import math
from collections.abc import Iterator

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
FELT = 1e-4
"""A direction counts from this share of the variance: a hundredth of the spread, measured in length."""
_DUST = 1e-9
_PROJECTIONS = 8
_VALUES = 1 << 25
"""Values that a search for copies looks at: 1.6 s at the most were measured, for 2^20 rows.
2^18 rows of two dimensions end with most of it left."""
_PIECE = 1 << 19
"""Values in float64 at a time: 4 MiB."""


def row_norms(rows: Rows | Floats) -> Floats:
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
    low, typical, high = quantiles(values, 0.25, 0.5, 0.75)
    return float((high - low) / typical)


def quantiles(values: Floats, *shares: float) -> Floats:
    """Return the quantiles of `values` [N], N > 0, as np.quantile does, which loads numpy.ma.

    >>> quantiles(np.array([9.0, 1.0, 2.0, 4.0]), 0.5, 0.25).tolist()
    [3.0, 1.75]
    """
    ordered = np.sort(values)  # NaN last
    if np.isnan(ordered[-1]):
        return np.full(len(shares), np.nan)
    places = np.asarray(shares) * (len(ordered) - 1)
    return np.asarray(np.interp(places, np.arange(len(ordered)), ordered))


def spread(rows: Rows) -> float:
    """Return the root mean square distance of a row to the mean row: sqrt of the total variance."""
    if not len(rows):
        return 0.0
    mean = rows.mean(axis=0, dtype=np.float64)
    return math.sqrt(sum(float(np.square(piece - mean).sum()) for piece in _pieces(rows)) / len(rows))


def root_mean_square(rows: Rows) -> float:
    """Return the root mean square of all values of `rows` [N, D], N > 0.

    >>> round(root_mean_square(np.array([[3, 4], [0, 5]], dtype=np.float32)) ** 2, 6)
    12.5
    """
    return math.sqrt(sum(float(np.square(piece).sum()) for piece in _pieces(rows)) / rows.size)


def _pieces(rows: Rows) -> Iterator[Floats]:
    """Yield `rows` in float64 a few MiB at a time: a table may be as large as the memory."""
    step = max(1, _PIECE // max(1, rows.shape[1]))
    return (rows[at : at + step].astype(np.float64) for at in range(0, len(rows), step))


def effective_rank(rows: Rows) -> float:
    """Return exp of the entropy of the normalised squared singular values of the CENTRED rows.

    Without centring, a large common offset would make every codebook look one-dimensional. 0 where
    all rows are equal. Roy & Vetterli 2007, "The effective rank", with squared singular values.

    >>> round(effective_rank(np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], dtype=np.float32)), 6)
    2.0
    """
    return rank_of(variance_shares(rows))


def rank_of(shares: Floats) -> float:
    """Return the effective rank of the `shares` of the variance by direction; 0 where there are none."""
    return float(np.exp(plug_in_entropy(shares))) if len(shares) else 0.0


def variance_shares(rows: Rows, weights: Floats | Ints | None = None) -> Floats:
    """Return the share of the variance in each principal direction of `rows` [K, D], largest first.

    Empty where there is no variance. A row counts as often as its weight, [K], says.

    >>> variance_shares(np.array([[2, 0], [-2, 0], [0, 1], [0, -1]], dtype=np.float32)).tolist()
    [0.8, 0.2]
    """
    shares: Floats = np.ones(len(rows)) if weights is None else weights.astype(np.float64)
    if weights is not None:
        rows, shares = rows[shares > 0], shares[shares > 0]
    shares /= shares.sum() or 1.0
    mean = np.zeros(rows.shape[1])
    for piece, of_piece in _weighted(rows, shares):
        mean += of_piece @ piece
    scatter, squares = np.zeros((min(rows.shape),) * 2), 0.0
    if rows.shape[1] <= rows.shape[0]:
        for piece, of_piece in _weighted(rows, shares):
            squares += float(of_piece @ np.square(piece).sum(axis=1))
            centred = (piece - mean) * np.sqrt(of_piece)[:, None]
            scatter += centred.T @ centred
    else:
        step = max(1, _PIECE // max(1, len(rows)))
        for at in range(0, rows.shape[1], step):
            columns = rows[:, at : at + step].astype(np.float64)
            squares += float(shares @ np.square(columns).sum(axis=1))
            centred = (columns - mean[at : at + step]) * np.sqrt(shares)[:, None]
            scatter += centred @ centred.T
    values = np.maximum(np.linalg.eigvalsh(scatter), 0.0)[::-1]
    # Rounding leaves about machine epsilon × the squared offset where the variance is nil.
    return np.asarray(values / values.sum()) if values.sum() > 1e-14 * squares else np.zeros(0)


def _weighted(rows: Rows, weights: Floats) -> Iterator[tuple[Floats, Floats]]:
    """Yield the pieces of `rows`, each with the weights of its rows."""
    first = 0
    for piece in _pieces(rows):
        yield piece, weights[first : first + len(piece)]
        first += len(piece)


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


def copies(rows: Rows, tolerance: float, seed: int = 0) -> Mask:
    """Return which of `rows` [K, D] lie within `tolerance` of an earlier row, bool [K].

    Rows are cut into strips along a random direction, and sorted in each along another one. Close rows
    stay close in both, so only neighbours in that order are compared: about K · (neighbours within the
    tolerance), never K². A second cut, half a strip further, brings those together that the first parted.
    "Earlier" is in that order; a row that is counted is not compared again. Of equal rows the first is
    kept. The search ends with its budget of values: a table that needs more was made to need more.
    """
    copied = _equal_to_earlier(rows)
    axes = np.random.default_rng(seed).standard_normal((rows.shape[1], _PROJECTIONS))
    axes /= np.linalg.norm(axes, axis=0)
    shadow = np.concatenate([np.zeros((0, _PROJECTIONS)), *(piece @ axes for piece in _pieces(rows))]).T
    slack = tolerance + 1e-6 * float(np.abs(shadow).max(initial=0.0))  # float32 rows, rounded once
    left = _VALUES
    for shift in (0.0, 0.5):
        strips = np.floor(shadow[0] / (2 * slack or 1.0) + shift)
        left = _mark_copies(copied, rows, tolerance, strips, shadow[1:], slack, left)
    return copied


def _mark_copies(
    copied: Mask, rows: Rows, tolerance: float, strips: Floats, shadow: Floats, slack: float, left: int
) -> int:
    """Mark in `copied` [K] the rows near to an earlier one of their strip; return the values that are left.

    Args:
        copied: the copies that are known.
        rows: [K, D].
        tolerance: how near copies are.
        strips: number of each row's strip, [K].
        shadow: the rows' places in several directions, [P, K]; in the first one they are sorted.
        slack: how near copies are in each direction.
        left: how many values may be looked at.
    """
    first = np.flatnonzero(~copied)
    first = first[np.lexsort((shadow[0, first], strips[first]))]
    strips, places = strips[first], shadow[0, first]
    step = 1
    while step < len(first) and left > 0:
        near = np.flatnonzero((strips[step:] == strips[:-step]) & (places[step:] - places[:-step] <= slack))
        left -= len(first) // 2
        if not near.size:
            break
        for others in shadow[1:]:
            left -= near.size
            near = near[np.abs(others[first[near + step]] - others[first[near]]) <= slack]
        left -= near.size * rows.shape[1]
        close = near[_gaps(rows, first[near + step], first[near]) <= tolerance] + step
        if close.size:
            copied[first[close]] = True
            first, strips, places = (np.delete(array, close) for array in (first, strips, places))
        else:
            step += 1
    return left


def _equal_to_earlier(rows: Rows) -> Mask:
    """Return which of `rows` [K, D] equal an earlier one, bool [K]; rows with the same hash are compared."""
    odd = np.random.default_rng(0).integers(1 << 62, size=rows.shape[1], dtype=np.uint64) * np.uint64(2)
    hashes = []
    for piece in _pieces(rows):
        bits = (piece + 0.0).view(np.uint64)  # adding 0 makes -0 a 0
        hashes.append(((bits ^ bits >> np.uint64(32)) * (odd + np.uint64(1))).sum(axis=1, dtype=np.uint64))
    _, firsts, which = np.unique(
        np.concatenate([np.zeros(0, np.uint64), *hashes]), return_index=True, return_inverse=True
    )
    earlier = firsts[which]
    again = np.flatnonzero(earlier != np.arange(len(rows)))
    equal = np.zeros(len(rows), dtype=bool)
    equal[again] = _gaps(rows, again, earlier[again]) == 0
    return equal


def _gaps(rows: Rows, some: Ints, others: Ints) -> Floats:
    """Return the distances [n] of some of `rows` to as many others, a few MiB at a time."""
    step = max(1, _PIECE // max(1, rows.shape[1]))
    found = np.empty(len(some))
    for at in range(0, len(some), step):
        found[at : at + step] = row_norms(rows[some[at : at + step]] - rows[others[at : at + step]])
    return found


def histogram_quantiles(counts: Floats | Ints, points: int = 33) -> tuple[float, ...]:
    """Return the sorted counts at `points` evenly spaced quantiles from 0 to 1, least first.

    >>> histogram_quantiles(np.array([4.0, 1.0, 9.0]), points=3)
    (1.0, 4.0, 9.0)
    """
    ordered = np.sort(counts)
    at = np.rint(np.linspace(0, len(ordered) - 1, points)).astype(np.int64)
    return tuple(ordered[at].astype(np.float64).tolist())
