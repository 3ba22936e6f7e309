"""The rule of an EMA codebook, for numpy and torch arrays alike: a code is its sum over its smoothed count.

It is that of van den Oord et al. 2017, appendix A.1, with the Laplace smoothing of zalando's notebook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # a file's codebook is read where torch may not be installed
    import torch

A = TypeVar("A", NDArray[np.floating[Any]], "torch.Tensor")
"""Arrays of floating-point numbers; all arguments of one call are of one kind."""


def divisor(counts: A, smoothing: float | None) -> A:
    """Return the divisor of the sums in an EMA update: (c + ε) N / (N + K ε), of the same sum as the counts.

    Args:
        counts: EMA counts c, [K], whose sum N is above 0; counts without a sum stay zero.
        smoothing: ε; 0 for a rule without smoothing, and None, which is unknown, is taken for that.
    """
    if not smoothing:
        return counts
    total = counts.sum()
    smoothed: A = (counts + smoothing) * total / (total + len(counts) * smoothing)
    return smoothed
