"""Split-conformal prediction sets: labels that hold the right one as often as is promised."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

COVERAGE = 0.9
"""The share of the samples whose set is to hold the right label."""


def conformal_sets(
    held_out: ArrayLike, held_out_labels: ArrayLike, probabilities: ArrayLike, coverage: float = COVERAGE
) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Return which labels are in the prediction set of each row, bool [N, C].

    A label is in the set where its probability is at least a threshold: that which the ceil((M + 1) ·
    coverage)-th of the M held-out rows reaches, sorted by the probability of their right label, the largest
    first. With too few held-out rows every label is in every set. Formula: Sadinle, Lei and Wasserman 2019,
    "Least Ambiguous Set-Valued Classifiers with Bounded Error Levels"; Angelopoulos and Bates 2021,
    arXiv:2107.07511, section 1.

    Args:
        held_out: class probabilities [M, C] of data that neither trained the model nor is scored with it.
        held_out_labels: its labels, int [M].
        probabilities: class probabilities [N, C].
        coverage: the share that is to hold the right label.

    Raises:
        ValueError: if there are no held-out rows, or the shapes do not fit.

    >>> conformal_sets([[0.9, 0.1]] * 19, [0] * 19, [[0.95, 0.05], [0.5, 0.5]]).tolist()
    [[True, False], [False, False]]
    """
    known, labels = np.asarray(held_out, dtype=np.float64), np.asarray(held_out_labels)
    scores = np.asarray(probabilities, dtype=np.float64)
    if known.ndim != 2 or scores.ndim != 2 or labels.shape != known.shape[:1] or not len(labels):
        raise ValueError(f"held out are {known.shape} and labels {labels.shape}, expected [M, C] and [M]")
    if known.shape[1] != scores.shape[1]:
        raise ValueError(f"{known.shape[1]} classes were held out, and {scores.shape[1]} are given")
    rank = math.ceil((len(labels) + 1) * coverage)
    if rank > len(labels):
        return np.ones(scores.shape, dtype=np.bool_)
    right = np.sort(known[np.arange(len(labels)), labels.astype(np.int64)])[::-1]
    return np.asarray(scores >= right[rank - 1])
