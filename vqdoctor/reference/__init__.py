"""The built-in models: the Conv2d-VQ reference model, its tasks on real data, and its faults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from vqdoctor.models.task import Task
from vqdoctor.reference.chain.task import SEQUENCES
from vqdoctor.reference.task import DATA_SETS

TaskFactory = Callable[[Mapping[str, object], Mapping[str, NDArray[np.generic]]], Task]
"""A checkpoint's config and a data file's arrays (x, y, and split where it has one) to the task."""


_BUILT_IN = {**DATA_SETS, SEQUENCES.task: SEQUENCES}

BUILTIN_TASKS: Mapping[str, TaskFactory] = MappingProxyType(
    {name: data.make for name, data in _BUILT_IN.items()}
)
"""The tasks that a checkpoint may name, and the only ones: a name from a file is never imported."""

BUILTIN_DATA: Mapping[str, str] = MappingProxyType({name: data.file for name, data in _BUILT_IN.items()})
"""The data file of each built-in task, as it lies beside the task's checkpoints."""
