"""The built-in tasks: classify and reconstruct real digits, or motion-sensor windows, through a codebook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from vqdoctor.core.frozen import frozen
from vqdoctor.models.task import Losses, Split
from vqdoctor.reference.chain.model import ChainClassifier
from vqdoctor.reference.model import Conv2dVQClassifier
from vqdoctor.reference.recipes import HEALTHY, Recipe

SPLITS: tuple[str, ...] = get_args(Split)
"""Names of the splits; a data file may store their positions here instead: 0 train, 1 stop, 2 val."""

Batch = tuple[torch.Tensor, torch.Tensor]
Array = NDArray[np.generic]


@frozen
class DataSet:
    """A data set that a built-in task is about.

    Attributes:
        name: its name; the task's is that of the model, "/" and this.
        classes: number of classes.
        file: its file, as it lies beside the task's checkpoints.
        model: name of the model.
    """

    name: str
    classes: int
    file: str
    model: str = "conv2d-vq"

    @property
    def task(self) -> str:
        """Name of the task."""
        return f"{self.model}/{self.name}"

    def make(self, config: Mapping[str, object], data: Mapping[str, Array]) -> ReferenceTask:
        """Return the task, with a checkpoint's config and a data file's x, y, and split where it has one."""
        return ReferenceTask(data["x"], data["y"], data.get("split"), config, classes=self.classes)


DIGITS = DataSet(name="digits", classes=10, file="digits.npz")
MOTION = DataSet(name="motion", classes=7, file="motion.npz")
DATA_SETS: Mapping[str, DataSet] = MappingProxyType({data.task: data for data in (DIGITS, MOTION)})


class ReferenceTask:
    """The reference model, its data and its losses; satisfies `vqdoctor.models.task.Task`.

    The task loss is cross-entropy + `reconstruction_weight` × mean squared error of the inputs.

    Attributes:
        default: the recipe whose value a setting has that the config lacks.
        settings: names of the settings that the model is built with.
        config: the settings of the training, as the checkpoint records them.
        vq_weight: weight of the VQ loss in training; None where the config does not say.
        data: inputs [N, channels, H, T] and labels [N] of each split.
        classes: number of classes.
    """

    default: ClassVar[Recipe] = HEALTHY
    settings: ClassVar[tuple[str, ...]] = (
        "num_codes", "dim", "decay", "straight_through", "quantizer", "use_vq",
    )  # fmt: skip

    def __init__(
        self,
        x: Array,
        y: Array,
        split: Array | None = None,
        config: Mapping[str, object] | None = None,
        *,
        classes: int = DIGITS.classes,
    ) -> None:
        """Take the arrays as the model eats them.

        Args:
            x: inputs, float [N, channels, H, T]: images [N, 1, 8, 8] in [0, 1], or windows [N, 3, 2, T].
            y: labels, int [N], or [N, steps] of a model that names each step.
            split: which split each input is in, as names or positions of `SPLITS`, [N]; without it
                every split is all the data, as when somebody brings a batch of their own.
            config: settings of the training; what is missing has the healthy recipe's value.
            classes: number of classes.

        Raises:
            ValueError: if the arrays do not fit each other or the model, or a setting is not a number.
        """
        if x.ndim != 4:
            raise ValueError(f"x must be [batch, channels, H, T], got shape {x.shape}")
        if y.shape[:1] != (len(x),) or (split is not None and split.shape != (len(x),)):
            shapes = [array.shape for array in (y, split) if array is not None]
            raise ValueError(f"x has {len(x)} images, but y and split have shapes {shapes}")
        self.config = dict(config or {})
        self.classes = classes
        self.vq_weight = self.number("vq_weight") if "vq_weight" in self.config else None
        images, labels = torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.int64))
        rows = {name: torch.from_numpy(members(split, name, len(x))) for name in SPLITS}
        self.data: dict[str, Batch] = {name: (images[row], labels[row]) for name, row in rows.items()}

    def model(self) -> Conv2dVQClassifier | ChainClassifier:
        """Return the model as the config says that it was trained, faults included."""
        return Conv2dVQClassifier(**self.model_settings())

    def model_settings(self) -> dict[str, Any]:
        """Return the arguments of the model: those that the config records, the channels and the classes."""
        recorded = {name: self.config[name] for name in self.settings if name in self.config}
        return {**recorded, "channels": self.data["train"][0].shape[1], "classes": self.classes}

    def optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        """Return a fresh Adam with the config's learning rate."""
        return torch.optim.Adam(model.parameters(), lr=self.number("learning_rate"))

    def batches(self, split: Split) -> Iterator[Batch]:
        """Return the batches of a split, in the same order every time; an empty split has none."""
        size = int(self.number("batch_size"))
        images, labels = self.data[split]
        if not len(images):  # torch.split would give one batch without samples
            return iter(())
        return zip(torch.split(images, size), torch.split(labels, size), strict=True)

    def shuffled(self, seed: int) -> Iterator[Batch]:
        """Return the train batches of one epoch, the images in a random order of that seed."""
        images, labels = self.data["train"]
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
        for rows in torch.split(order, int(self.number("batch_size"))) if len(images) else ():
            yield images[rows], labels[rows]

    def losses(self, model: torch.nn.Module, batch: Batch) -> Losses:
        """Run the model on a batch (images, labels) and return its losses."""
        x, y = batch
        output = model(x)
        error = functional.mse_loss(output["reconstruction"], x)
        task = functional.cross_entropy(output["logits"], y) + self.number("reconstruction_weight") * error
        return Losses(task=task, vq=output["vq_loss"].get("vq"), logits=output["logits"], labels=y)

    def number(self, name: str) -> float:
        """Return a setting that is a number.

        Raises:
            ValueError: if it is not.
        """
        value = self.config.get(name, getattr(self.default, name))
        if not isinstance(value, int | float):
            raise ValueError(f"the config's {name} must be a number, got {value!r}")
        return float(value)


def members(split: Array | None, name: str, size: int) -> NDArray[np.int64]:
    """Return which rows of the data belong to a split, int64.

    Args:
        split: names or positions of `SPLITS` [N], or None where everything belongs to every split.
        name: one of `SPLITS`.
        size: N.
    """
    if split is None:
        return np.arange(size)
    wanted = name if split.dtype.kind == "U" else SPLITS.index(name)
    return np.flatnonzero(split == wanted)
