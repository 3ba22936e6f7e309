"""The built-in example: the Conv2d-VQ reference model, its task on real data, and its faults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from vqdoctor.models.task import Task
from vqdoctor.reference.digits import NAME, DigitsTask

TaskFactory = Callable[[Mapping[str, object], Mapping[str, NDArray[np.generic]]], Task]
"""A checkpoint's config and a data file's arrays (x, y, and split where it has one) to the task."""


def _digits(config: Mapping[str, object], data: Mapping[str, NDArray[np.generic]]) -> Task:
    return DigitsTask(data["x"], data["y"], data.get("split"), config)


BUILTIN_TASKS: Mapping[str, TaskFactory] = MappingProxyType({NAME: _digits})
"""The tasks that a checkpoint may name, and the only ones: a name from a file is never imported."""

BUILTIN_DATA: Mapping[str, str] = MappingProxyType({NAME: "digits.npz"})
"""The data file of each built-in task, as it lies beside the task's checkpoints."""
