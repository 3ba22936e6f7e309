"""Rows or columns: where a codebook is square, its EMA sums decide in place of the shapes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqdoctor.layouts.layout import Orientation
from vqdoctor.layouts.view import Tensor

_PARALLEL = 0.99
"""Least median cosine between a code and its sum. Codes are sums over counts, so it is 1 up to rounding and
stale rows; along the other axis it is about 1 / sqrt(K), 0.25 at K = 16."""


def told_by_sums(codebook: Tensor, sums: Tensor) -> Orientation | None:
    """Return how a square codebook [K, K] is stored: each code is parallel to its EMA sum.

    Returns None where both directions fit or neither does, such as before the first update.
    """
    stored, summed = (np.asarray(tensor.read(), dtype=np.float64) for tensor in (codebook, sums))
    rows = _median_cosine(stored, summed) >= _PARALLEL
    columns = _median_cosine(stored.T, summed.T) >= _PARALLEL
    if rows == columns:
        return None
    return "kd" if rows else "dk"


def _median_cosine(codes: NDArray[np.float64], sums: NDArray[np.float64]) -> float:
    norms = np.linalg.norm(codes, axis=1) * np.linalg.norm(sums, axis=1)
    known = np.isfinite(norms) & (norms > 0)
    if not known.any():
        return 0.0
    return float(np.median((codes[known] * sums[known]).sum(axis=1) / norms[known]))
