"""Makes motion.npz from seglearn's copy of the smartwatch data: shoulder exercises of ten people.

Run as `python -m vqdoctor.reference.make_motion WATCH_DATASET.npy OUT.npz`, with the file that the package
`seglearn` carries (seglearn/data/watch_dataset.npy; Burns et al. 2018, arXiv:1802.01489; BSD 2-clause).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LENGTH, STRIDE, AVERAGED = 100, 150, 2
"""Samples of a window, samples between the starts of two, and samples that are averaged into one: 50 Hz
become windows of 2 s at 25 Hz, a second apart."""
GYROSCOPE_SCALE = 2.0
"""The divisor of the gyroscope's rad/s, so that both sensors are about one in size."""
STOP, VAL = (6, 10), (5, 9)
"""People of the stop and of the val split; the others train. People are split, and never windows."""


def motion(recordings: Iterable[tuple[NDArray[Any], int, int]]) -> dict[str, NDArray[np.generic]]:
    """Return x float16 [N, 3, 2, 50], and y, split (0 train, 1 stop, 2 val), person and recording, uint8 [N].

    Args:
        recordings: samples [T, 6] of three axes of the accelerometer, then of the gyroscope; the exercise;
            the person.
    """
    x, y, split, people, numbers = [], [], [], [], []
    for number, (samples, exercise, person) in enumerate(recordings):
        for start in range(0, len(samples) - LENGTH + 1, STRIDE):
            window = samples[start : start + LENGTH].reshape(LENGTH // AVERAGED, AVERAGED, 2, 3).mean(axis=1)
            x.append(window.transpose(2, 1, 0) / np.array([[1.0], [GYROSCOPE_SCALE]]))
            y.append(exercise)
            split.append(1 if person in STOP else 2 if person in VAL else 0)
            people.append(person)
            numbers.append(number)
    return {
        "x": np.array(x, dtype=np.float16),
        "y": np.array(y, dtype=np.uint8),
        "split": np.array(split, dtype=np.uint8),
        "person": np.array(people, dtype=np.uint8),
        "recording": np.array(numbers, dtype=np.uint8),
    }


if __name__ == "__main__":
    # the file is a pickle of arrays, and the developer's own: nothing of a user comes here
    watch = np.load(Path(sys.argv[1]), allow_pickle=True).item()
    made = motion(zip(watch["X"], watch["y"], watch["subject"], strict=True))
    np.savez_compressed(Path(sys.argv[2]), **made)  # type: ignore[arg-type]
