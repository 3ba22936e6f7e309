"""The built-in models: the Conv2d-VQ reference model, its tasks on real data, and its faults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from vqdoctor.models.task import Task
from vqdoctor.reference.task import DATA_SETS, ReferenceTask

TaskFactory = Callable[[Mapping[str, object], Mapping[str, NDArray[np.generic]]], Task]
"""A checkpoint's config and a data file's arrays (x, y, and split where it has one) to the task."""


def _task(classes: int, config: Mapping[str, object], data: Mapping[str, NDArray[np.generic]]) -> Task:
    return ReferenceTask(data["x"], data["y"], data.get("split"), config, classes=classes)


BUILTIN_TASKS: Mapping[str, TaskFactory] = MappingProxyType(
    {name: partial(_task, data.classes) for name, data in DATA_SETS.items()}
)
"""The tasks that a checkpoint may name, and the only ones: a name from a file is never imported."""

BUILTIN_DATA: Mapping[str, str] = MappingProxyType({name: data.file for name, data in DATA_SETS.items()})
"""The data file of each built-in task, as it lies beside the task's checkpoints."""
