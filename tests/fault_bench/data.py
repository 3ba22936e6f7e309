"""The data that the fault bench is trained on: digits, motion windows and photographs, and drawn sequences.

The photographs are held out: no limit and no rule was ever looked at with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

DIGITS = Path(__file__).parents[2] / "sample_checkpoints" / "digits.npz"
MOTION = DIGITS.with_name("motion.npz")
HELD_OUT = "patches"


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """Samples [N, channels, H, W] or [N, channels, T] of two splits, and labels [N] where there are any.

    Attributes:
        train: samples to train on.
        val: samples that every figure comes from.
        labels: labels of each split; empty where the task is to reconstruct alone.
        order: how a loader that does not shuffle serves the train samples, [N]: as a folder lists them,
            kind by kind.
    """

    train: torch.Tensor
    val: torch.Tensor
    labels: dict[str, torch.Tensor]
    order: torch.Tensor

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
    return _data(x, y, train, val, labelled=labelled)


def _motion(labelled: bool) -> Data:
    """Windows of a smartwatch [N, 6, 50], three axes of two sensors; nobody in val is in train."""
    with np.load(MOTION) as file:
        x = torch.from_numpy(file["x"]).float().flatten(1, 2)
        y, val = torch.from_numpy(file["y"]).long(), torch.from_numpy(file["split"] == 2)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return _data(x, y, order[~val[order]], order[val[order]], labelled=labelled)


def _photos(labelled: bool, side: int = 8, bands: int = 3) -> Data:
    """Patches [N, 3, 8, 8] of scikit-learn's two photographs, halved; a label is photograph and band."""
    from sklearn.datasets import load_sample_images

    patches, labels = [], []
    for photo, pixels in enumerate(load_sample_images().images):
        half = pixels[::2, ::2].astype(np.float32) / 255
        cut = np.lib.stride_tricks.sliding_window_view(half, (side, side), (0, 1))[::4, ::8]
        rows = np.arange(len(cut)) * bands // len(cut)
        labels.append(np.repeat(photo * bands + rows, cut.shape[1]))
        patches.append(cut.reshape(-1, 3, side, side))
    x, y = torch.from_numpy(np.concatenate(patches)), torch.from_numpy(np.concatenate(labels))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:1800]
    return _data(x, y, order[:1300], order[1300:], labelled=labelled)


def _data(
    x: torch.Tensor, y: torch.Tensor, train: torch.Tensor, val: torch.Tensor, *, labelled: bool
) -> Data:
    labels = {"train": y[train], "val": y[val]} if labelled else {}
    return Data(train=x[train], val=x[val], labels=labels, order=y[train].argsort(stable=True))


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
    parts = torch.arange(len(labels)).tensor_split([2000])
    return _data(samples_, labels, *parts, labelled=True)


def _patches(side: int = 8, every: int = 12) -> Data:
    from sklearn.datasets import load_sample_image

    grey = load_sample_image("china.jpg").mean(axis=2).astype(np.float32) / 255
    cut = np.lib.stride_tricks.sliding_window_view(grey, (side, side))[::every, ::every]
    x = torch.from_numpy(cut.reshape(-1, 1, side, side).copy())
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    return Data(train=x[:1300], val=x[1300:1800], labels={}, order=torch.arange(1300))


_LOADERS = {
    "digits": lambda: _digits(labelled=False),
    "digit-classes": lambda: _digits(labelled=True),
    "sequences": _sequences,
    "patches": _patches,
    "motion": lambda: _motion(labelled=False),
    "motion-classes": lambda: _motion(labelled=True),
    "photos": lambda: _photos(labelled=False),
    "photo-classes": lambda: _photos(labelled=True),
}
