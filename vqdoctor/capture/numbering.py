"""Numbers for the outputs of a layer that has no codebook and tells no codes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Projected = NDArray[np.float64]

NEAR = 1e-5
"""Outputs are one code where no projection differs by more than this share of the largest: z + (z_q - z) is
z_q up to 1e-7 of z."""
DIRECTIONS = 4
"""Random directions on which outputs are compared: two codes that lie near on one are apart on another."""


class Numbering:
    """Gives equal outputs the same number, over all calls of a layer."""

    def __init__(self) -> None:
        self._known: Projected = np.zeros((0, DIRECTIONS))
        self._near: float | None = None

    def __len__(self) -> int:
        """Return how many different outputs came so far."""
        return len(self._known)

    def of(self, outputs: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the number of each output, [N, D] in, [N] out; a new one gets the next number."""
        directions = np.random.default_rng(0).standard_normal((outputs.shape[1], DIRECTIONS))
        projected: Projected = outputs.astype(np.float64) @ directions
        if self._near is None:
            self._near = NEAR * max(float(np.abs(projected).max(initial=0.0)), 1e-12)
        both = np.concatenate([self._known, projected])
        clusters = np.stack([_clusters(along, self._near) for along in both.T], axis=1)
        _, first, group = np.unique(clusters, axis=0, return_index=True, return_inverse=True)
        numbers = np.full(len(first), -1)
        known = len(self._known)
        numbers[first < known] = first[first < known]  # each known one is the first of its own group
        fresh = np.flatnonzero(first >= known)
        fresh = fresh[np.argsort(first[fresh])]
        numbers[fresh] = known + np.arange(len(fresh))
        self._known = np.concatenate([self._known, both[first[fresh]]])
        return numbers[group.ravel()[known:]]


def _clusters(values: Projected, near: float) -> NDArray[np.int64]:
    """Return for each value the number of its cluster: neighbours in it are at most `near` apart."""
    order = np.argsort(values, kind="stable")
    numbers = np.empty(len(values), dtype=np.int64)
    numbers[order] = np.concatenate([[0], np.cumsum(np.diff(values[order]) > near)]) if len(values) else 0
    return numbers
