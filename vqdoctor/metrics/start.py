"""Rows as a constructor draws them: which of the usual random starts they still are."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from vqdoctor.metrics.entropy import Floats
from vqdoctor.metrics.geometry import Mask, Rows

LEAST_ENTRIES = 256
"""Fewer numbers fit too many distributions."""
_ENTRIES = 4_096
_CRITICAL = 1.95
"""Kolmogorov's statistic times the square root of n, exceeded by chance once in 1,000 (Smirnov 1948)."""
_DIMS = 64
"""Dimensions that are correlated with each other, at most; more only take more time."""
_ROUNDING = 1e-3
"""Relative rounding of a bound in the types that weights are saved in, such as float16."""
_STRUCTURED = 6.0
"""Correlation of the dimensions beyond chance, in standard deviations, from which rows are not noise: random
starts measured up to 4, trained codebooks 460 and more."""


def as_constructed(codebook: Rows, unused: Mask | None = None) -> tuple[Mask, str]:
    """Return which rows still are as a constructor drew them, and from which distribution.

    Some starts are so narrow that a row shows by itself: each of its numbers lies within the bound, and those
    of a trained row do not. A row of a wider start is as large as a trained one, so only `unused` rows are
    compared with it.

    Args:
        codebook: float32 [K, D], finite.
        unused: rows [K] that are known to be unused; None where that is unknown.

    Returns:
        The rows, bool [K], and the distribution, such as "U(±1/128)"; no row and "" if no start fits.
    """
    codes, dim = codebook.shape
    narrow = {
        f"U(±1/{codes:,})": 1 / codes,  # taming-transformers, diffusers, zalando
        "Kaiming's uniform": math.sqrt(6 / (codes * dim)),  # vector-quantize-pytorch, of [H, K, D]
    }
    wide = {
        "Kaiming's uniform": math.sqrt(6 / dim),  # encodec, of [K, D]
        "Xavier's uniform": math.sqrt(6 / (codes + dim)),
    }
    for name, bound in narrow.items():
        rows = (np.abs(codebook) <= bound).all(axis=1) & codebook.any(axis=1)
        if _fits(codebook[rows], partial(_uniform, low=-bound, high=bound)):
            return rows, name
    nothing = np.zeros(codes, dtype=bool)
    left = nothing if unused is None else unused & codebook.any(axis=1)
    starts: dict[str, Callable[[Floats], Floats]] = {
        "N(0, 1)": _normal,
        "U(0, 1)": partial(_uniform, low=0.0, high=1.0),
        **{name: partial(_uniform, low=-bound, high=bound) for name, bound in wide.items()},
    }
    return next(((left, name) for name, cdf in starts.items() if _fits(codebook[left], cdf)), (nothing, ""))


def is_drawn(weights: Floats, shape: tuple[int, ...]) -> bool:
    """Return whether a layer's weights still are as torch draws those of a linear or convolutional layer.

    Both starts are bounded, and training moves some weight across the bound: U(±1/sqrt(f)) with f inputs,
    and Xavier's uniform. A normal start has no bound, so that small steps would not show: it counts as moved.

    Args:
        weights: any of them, spread over all, [N].
        shape: of the whole tensor: outputs, inputs, and a kernel's axes, which are inputs too.
    """
    outputs, inputs = shape[0], math.prod(shape[1:])
    largest = float(np.abs(weights).max(initial=0.0))
    bounds = (1 / math.sqrt(inputs), math.sqrt(6 / (inputs + outputs)))
    fitting = (bound for bound in bounds if largest <= bound * (1 + _ROUNDING))
    return any(_follows(weights, partial(_uniform, low=-bound, high=bound)) for bound in fitting)


def _uniform(values: Floats, low: float, high: float) -> Floats:
    return np.clip((values - low) / (high - low), 0, 1)


def _normal(values: Floats) -> Floats:
    return np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in values])


def _fits(rows: Rows, cdf: Callable[[Floats], Floats]) -> bool:
    """Return whether the rows are independent draws from a distribution."""
    return _follows(rows.reshape(-1), cdf) and structure(rows) < _STRUCTURED


def _follows(numbers: Floats | Rows, cdf: Callable[[Floats], Floats]) -> bool:
    """Return whether numbers follow a distribution, by Kolmogorov and Smirnov's test."""
    if numbers.size < LEAST_ENTRIES:
        return False
    values: Floats = np.sort(numbers[:: -(-numbers.size // _ENTRIES)].astype(np.float64))
    n, expected = len(values), cdf(values)
    steps: Floats = np.arange(n + 1, dtype=np.float64) / n
    distance = max(float((steps[1:] - expected).max()), float((expected - steps[:-1]).max()))
    return distance < _CRITICAL / math.sqrt(n)


def structure(codebook: Rows) -> float:
    """Return how far the rows' dimensions correlate beyond chance, in standard deviations.

    Of K rows of independent noise, the squared correlation of two dimensions has mean 1/(K - 1) and
    variance about 2/(K - 1)^2.

    Args:
        codebook: float32 [K, D].
    """
    rows = codebook[:, :_DIMS].astype(np.float64)
    rows = rows[:, rows.std(axis=0) > 0]
    dims = rows.shape[1]
    if dims < 2 or len(rows) < 3:
        return 0.0
    squares = np.atleast_2d(np.corrcoef(rows, rowvar=False))[np.triu_indices(dims, 1)] ** 2 * (len(rows) - 1)
    return float((squares - 1).sum() / np.sqrt(2 * len(squares)))
