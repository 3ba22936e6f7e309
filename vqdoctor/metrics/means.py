"""The mean of the vectors that chose each code."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCK = 2**16


def code_means(
    vectors: NDArray[np.floating], codes: NDArray[np.int64], num_codes: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return each code's number of vectors, [K], and their mean, float64 [K, D]: 0 for a code without any.

    Args:
        vectors: [N, D].
        codes: the code of each, in [0, K), [N].
        num_codes: K.
    """
    counts = np.bincount(codes, minlength=num_codes)
    sums = np.zeros((num_codes, vectors.shape[1]))
    for first in range(0, len(vectors), _BLOCK):
        part = codes[first : first + _BLOCK]
        order = np.argsort(part, kind="stable")
        used, starts = np.unique(part[order], return_index=True)
        rows = vectors[first : first + _BLOCK][order]
        sums[used] += np.add.reduceat(rows, starts, axis=0, dtype=np.float64)
    return counts, sums / np.maximum(counts, 1)[:, None]
