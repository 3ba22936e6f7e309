"""The data that the fault bench is trained on: real digits, drawn sequences, and patches of a photograph.

The patches are held out: no limit and no rule was ever looked at with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

DIGITS = Path(__file__).parents[2] / "sample_checkpoints" / "digits.npz"
HELD_OUT = "patches"


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """Samples [N, channels, H, W] or [N, channels, T] of two splits, and labels [N] where there are any."""

    train: torch.Tensor
    val: torch.Tensor
    labels: dict[str, torch.Tensor]

    @property
    def axes(self) -> int:
        """Axes of a sample beside its channels."""
        return self.train.ndim - 2


@cache
def load(name: str) -> Data:
    """Return a data set by its name; the same tensors at every call, so leave them as they are."""
    return _LOADERS[name]()


def _digits(labelled: bool) -> Data:
    with np.load(DIGITS) as file:
        x = torch.from_numpy(file["x"]).float()
        y = torch.from_numpy(file["y"]).long()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, val = order[:1300], order[1300:]
    labels = {"train": y[train], "val": y[val]} if labelled else {}
    return Data(train=x[train], val=x[val], labels=labels)


def _sequences(samples: int = 2500, length: int = 32, kinds: int = 24, classes: int = 8) -> Data:
    """Sequences of short gestures: each class prefers some of the kinds, and every gesture varies."""
    rng = np.random.default_rng(0)
    shapes = rng.normal(size=(kinds, 4, 2))
    liking = rng.dirichlet(np.full(kinds, 0.3), size=classes)
    y = rng.integers(classes, size=samples)
    x = np.zeros((samples, 4, length), dtype=np.float32)
    for sample, label in enumerate(y):
        start = 0
        while start < length:
            stop = min(length, start + int(rng.integers(2, 7)))
            level, slope = np.moveaxis(shapes[rng.choice(kinds, p=liking[label])], 1, 0)
            time = np.linspace(-1, 1, stop - start)
            x[sample, :, start:stop] = rng.uniform(0.6, 1.4) * (level[:, None] + slope[:, None] * time)
            start = stop
    x += rng.normal(scale=0.15, size=x.shape)
    samples_, labels = torch.from_numpy(x), torch.from_numpy(y)
    return Data(
        train=samples_[:2000], val=samples_[2000:], labels={"train": labels[:2000], "val": labels[2000:]}
    )


def _patches(side: int = 8, every: int = 12) -> Data:
    from sklearn.datasets import load_sample_image

    grey = load_sample_image("china.jpg").mean(axis=2).astype(np.float32) / 255
    cut = np.lib.stride_tricks.sliding_window_view(grey, (side, side))[::every, ::every]
    x = torch.from_numpy(cut.reshape(-1, 1, side, side).copy())
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    return Data(train=x[:1300], val=x[1300:1800], labels={})


_LOADERS = {
    "digits": lambda: _digits(labelled=False),
    "digit-classes": lambda: _digits(labelled=True),
    "sequences": _sequences,
    "patches": _patches,
}
