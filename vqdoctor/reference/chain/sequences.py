"""Sequences of changing activities, stitched from the motion-sensor recordings of one person each."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

LENGTH = 320
"""Samples of a sequence: 12.8 s at 25 Hz."""
LEAST, MOST = 40, 160
"""Shortest and longest activity in samples: 1.6 to 6.4 s. The end of the sequence may cut the last one."""
COUNTS = (240, 60, 80)
"""Sequences of the train, stop and val split."""


def stitch(
    windows: Mapping[str, NDArray[np.generic]], *, step: int, seed: int = 0
) -> dict[str, NDArray[np.generic]]:
    """Return x float32 [N, 3, 2, 320], y int64 [N, 320 / step] and split uint8 [N], the same for one seed.

    A sequence is of one person. Each activity is a stretch of one recording, and the next one is another
    exercise. The join points fall on steps. A recording's windows are a second apart, so an activity has a
    jump in it every two seconds.

    Args:
        windows: the arrays of motion.npz.
        step: samples of a step of the model's sequence, each with a label of its own.
        seed: seed of what is drawn.

    Raises:
        ValueError: if the arrays do not fit together, or a recording is shorter than the longest activity.
    """
    if len({len(windows[name]) for name in ("x", "y", "split", "person", "recording")}) > 1:
        raise ValueError("its arrays are not of the same length")
    random = np.random.default_rng(seed)
    splits, people, recordings = (windows[name] for name in ("split", "person", "recording"))
    series = {  # recording to its windows, one after the other
        int(number): np.concatenate(list(windows["x"][recordings == number]), axis=-1).astype(np.float32)
        for number in np.unique(recordings)
    }
    if (shortest := min(samples.shape[-1] for samples in series.values())) < MOST:
        raise ValueError(f"a recording of {shortest} samples is shorter than an activity of {MOST}")
    exercise = {number: int(windows["y"][recordings == number][0]) for number in series}
    x, y, split = [], [], []
    for name, count in enumerate(COUNTS):
        of = {
            person: [int(number) for number in np.unique(recordings[people == person])]
            for person in np.unique(people[splits == name])
        }
        for person in random.choice(list(of), size=count):
            samples, labels = _sequence(random, of[person], series, exercise, step)
            x.append(samples)
            y.append(labels)
            split.append(name)
    return {"x": np.array(x), "y": np.array(y), "split": np.array(split, dtype=np.uint8)}


def _sequence(
    random: np.random.Generator,
    recordings: list[int],
    series: Mapping[int, NDArray[np.generic]],
    exercise: Mapping[int, int],
    step: int,
) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """Return one sequence [3, 2, LENGTH], and the exercise of each step."""
    parts, labels = [], np.empty(0, dtype=np.int64)
    while len(labels) * step < LENGTH:
        others = [number for number in recordings if not len(labels) or exercise[number] != labels[-1]]
        number = int(random.choice(others))
        steps = int(random.integers(LEAST // step, MOST // step + 1))
        start = int(random.integers(series[number].shape[-1] - steps * step + 1))
        parts.append(series[number][..., start : start + steps * step])
        labels = np.concatenate([labels, np.full(steps, exercise[number])])
    return np.concatenate(parts, axis=-1)[..., :LENGTH], labels[: LENGTH // step]


def durations(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the lengths of the runs of equal labels [N, T] that end before the sequence does, in steps."""
    found = []
    for row in labels:
        changes = np.flatnonzero(np.diff(row)) + 1
        found.append(np.diff(changes, prepend=0))
    return np.concatenate(found)
