"""The Task of a model that comes without one: its usual outputs, and a batch of its input and perhaps y."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from vqdoctor.core.errors import UserError
from vqdoctor.models.task import Split
from vqdoctor.models.usual_losses import Batch, UsualLosses

NEEDS = "a model needs a batch with x (and y)"
BATCH_SIZE = 64
"""Samples in a batch where the training's batch size is unknown."""


class DefaultTask(UsualLosses):
    """A model and its batches, with losses made of its outputs; satisfies `vqdoctor.models.task.Task`.

    Attributes:
        vq_weight: weight of the VQ loss in the user's training; None is unknown.
        assumed_batch_size: samples in a batch, where the training's number is unknown; else None.
        serves_a_sample: that its batches need not be the whole training data.
    """

    assumed_batch_size: int | None = None
    serves_a_sample = True

    def __init__(
        self,
        model: torch.nn.Module,
        batches: Mapping[str, Sequence[Batch]],
        *,
        vq_loss: str | None = None,
        task_loss: str | None = None,
        vq_weight: float | None = None,
        input_name: str = "x",
    ) -> None:
        """Take the model and the batches of each split.

        Args:
            model: the model.
            batches: split to its batches; each has the input, perhaps y, and more.
            vq_loss: see `UsualLosses`, as for the two further down.
            task_loss: likewise.
            vq_weight: see the attribute.
            input_name: likewise.
        """
        self.vq_weight = vq_weight
        self.input_name, self.vq_loss, self.task_loss = input_name, vq_loss, task_loss
        self._model = model
        self._batches = batches

    def model(self) -> torch.nn.Module:
        """Return the model."""
        return self._model

    def batches(self, split: Split) -> Sequence[Batch]:
        """Return the batches of a split."""
        return self._batches.get(split, ())


def input_name(model: torch.nn.Module, names: Collection[str]) -> str:
    """Return the entry of a batch that is the model's input: "x", or the first that its forward() names.

    Raises:
        UserError: if the batch has no such entry.
    """
    if "x" in names:
        return "x"
    taken = [name for name in inspect.signature(model.forward).parameters if name != "y"]
    found = next((name for name in taken if name in names), None)
    if found is None:
        what = (
            f"{NEEDS}; given is {', '.join(names) or 'no array'}, and its forward() takes {', '.join(taken)}"
        )
        raise UserError(what, "call the model's input x, or as its forward() does")
    return found


def batches_of(
    arrays: Mapping[str, NDArray[Any]], size: int | None = None, name: str = "x"
) -> dict[str, Sequence[Batch]]:
    """Cut a batch file's arrays into the batches of each split.

    Args:
        arrays: the input, and perhaps y, split (names or positions of the splits) and more; an array with as
            many rows as the input is cut too. Text, which no model takes, is left out.
        size: samples in a batch.
        name: the name of the input.

    Raises:
        UserError: if y or split has another number of rows than the input.
    """
    given = arrays[name].shape
    rows = given[0] if given else 0
    for other in ("y", "split"):
        if other in arrays and arrays[other].shape[:1] != (rows,):
            shapes = f"{name} {list(given)} and {other} {list(arrays[other].shape)}"
            raise UserError(f"the batch has {shapes}", "they need the same number of rows")
    if not rows:
        raise UserError(f"the batch's {name} is empty", "save at least one sample")
    split = arrays.get("split")
    tensors = {
        key: torch.from_numpy(np.array(a))
        for key, a in arrays.items()
        if key != "split" and a.dtype.kind in "biufc"
    }
    found: dict[str, Sequence[Batch]] = {}
    for i, part_of in enumerate(get_args(Split)):
        # Without splits every split is all the data; the usage counts it once.
        mine = torch.arange(rows)
        if split is not None:
            mine = torch.from_numpy(np.flatnonzero(split == (part_of if split.dtype.kind == "U" else i)))
        elif part_of == "stop":
            continue
        found[part_of] = [
            {key: t[part] if t.shape[:1] == (rows,) else t for key, t in tensors.items()}
            for part in torch.split(mine, size or BATCH_SIZE)
            if len(part)
        ]
    return found
