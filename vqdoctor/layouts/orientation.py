"""Rows or columns, where the shapes leave it open: by the EMA sums, or by the widths of the model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqdoctor.layouts.layout import Orientation
from vqdoctor.layouts.state_dict import StateDict
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


def told_by_widths(state: StateDict, key: str) -> Orientation | None:
    """Return "dk" for a wide table whose number of rows is a width of the model, and that of columns is none.

    The layers around a VQ layer have its dimension D among their own sizes, and none of them has K.
    """
    rows, columns = state.entries[key].shape
    # The table's own shape has both.
    return "dk" if rows < columns and state.widths[rows] > 1 and state.widths[columns] == 1 else None


def _median_cosine(codes: NDArray[np.float64], sums: NDArray[np.float64]) -> float:
    norms = np.linalg.norm(codes, axis=1) * np.linalg.norm(sums, axis=1)
    known = np.isfinite(norms) & (norms > 0)
    if not known.any():
        return 0.0
    return float(np.median((codes[known] * sums[known]).sum(axis=1) / norms[known]))
