"""Makes digits.npz from scikit-learn's copy of the handwritten digits (a dev dependency).

Run as `python -m vqdoctor.reference.make_digits OUT.npz`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SPLIT_SIZES = (1000, 400, 397)
"""Images in train, stop and val."""
LEVELS = 16.0
"""The largest pixel value: pixels count the dark points of a 4×4 block."""


def digits() -> dict[str, NDArray[np.generic]]:
    """Return x float32 [1797, 1, 8, 8] in [0, 1], y int64 [1797] and split uint8 [1797].

    The split is stratified by label and fixed: 0 train, 1 stop, 2 val.
    """
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    raw = load_digits()
    x = (raw.images / LEVELS).astype(np.float32)[:, None]
    y = raw.target.astype(np.int64)
    return {"x": x, "y": y, "split": stratified(y, SPLIT_SIZES, seed=0)}


def stratified(y: NDArray[np.int64], sizes: tuple[int, ...], seed: int) -> NDArray[np.uint8]:
    """Deal the rows to splits of these sizes, each with the same shares of labels up to rounding.

    Rows sorted by label, in random order within a label, are dealt at evenly spaced places.

    Args:
        y: labels [N].
        sizes: rows of each split; their sum is N.
        seed: seed of the order within a label.

    Returns:
        The split's position in `sizes` for each row, uint8 [N].
    """
    order = np.lexsort((np.random.default_rng(seed).random(len(y)), y))
    # each split asks for its rows at even spacing; who asks first is served first
    asked = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
    owners = np.repeat(np.arange(len(sizes), dtype=np.uint8), sizes)[np.argsort(asked, kind="stable")]
    split = np.empty(len(y), dtype=np.uint8)
    split[order] = owners
    return split


if __name__ == "__main__":
    np.savez_compressed(Path(sys.argv[1]), **digits())  # type: ignore[arg-type]
