"""Entropy of a discrete distribution, from counts, in nats: the plain estimate and Grassberger's.

Reference: P. Grassberger, "Entropy Estimates from Insufficient Samplings", arXiv:physics/0307138.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LN2 = math.log(2.0)
_SERIES_FROM = 16
_DIGAMMA_HALF = -np.euler_gamma - 2 * LN2  # ψ(1/2)
_SMALL = _DIGAMMA_HALF + 2 * np.concatenate(([0.0], np.cumsum(1 / (2 * np.arange(_SERIES_FROM) + 1))))


def digamma_half(m: ArrayLike) -> Floats:
    """Return ψ(m + 1/2) for whole m ≥ 0, to 12 digits.

    Small m by the recurrence ψ(x + 1) = ψ(x) + 1/x, the rest by the asymptotic series around m.

    >>> round(float(digamma_half(0)), 5)
    -1.96351
    """
    m = np.asarray(m, dtype=np.int64)
    large = np.maximum(m, _SERIES_FROM).astype(np.float64)
    square = 1 / (large * large)
    series = np.log(large) + square * (1 / 24 - square * (7 / 960 - square * (31 / 8064)))
    return np.asarray(np.where(m < _SERIES_FROM, _SMALL[np.minimum(m, _SERIES_FROM)], series))


def grassberger_g(n: ArrayLike) -> Floats:
    """Return Grassberger's G(n) = ψ(n) + ½(−1)ⁿ [ψ((n+1)/2) − ψ(n/2)] for whole n ≥ 1.

    Both parities reduce to ψ(⌊n/2⌋ + ½) + ln 2, which is also finite at n = 0.
    """
    return digamma_half(np.asarray(n, dtype=np.int64) // 2) + LN2


def plug_in_entropy(counts: ArrayLike) -> Floats:
    """Return −Σ p ln p over the last axis of `counts` [..., K]: what training scripts print.

    Biased low by about (K − 1) / 2N on a sample of N. Counts may be fractional; their sum is > 0.

    >>> float(np.exp(plug_in_entropy([1, 1, 1, 1, 0])).round(9))
    4.0
    """
    counts = np.asarray(counts, dtype=np.float64)
    p = counts / counts.sum(axis=-1, keepdims=True)
    return np.asarray(-np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1))


def grassberger_entropy(counts: ArrayLike) -> Floats:
    """Return Grassberger's estimate ln N − (1/N) Σ n G(n) over the last axis of `counts` [..., K].

    `counts` are whole numbers of INDEPENDENT draws; on correlated ones it stays biased low. On small
    samples the formula can leave the range 0 … ln K.
    """
    counts = np.asarray(counts, dtype=np.int64)
    total = counts.sum(axis=-1)
    return np.asarray(np.log(total) - np.sum(weighed(counts), axis=-1) / total)


def weighed(counts: Ints) -> Floats:
    """Return n G(n) for whole n ≥ 0 of any shape; of many small ones, each number is computed once."""
    most = int(counts.max(initial=0))
    if most >= counts.size:
        return np.asarray(counts * grassberger_g(counts))
    numbers = np.arange(most + 1)
    return np.asarray((numbers * grassberger_g(numbers))[counts])
