"""The reference model on a few digits: something to retrain in a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vqdoctor.capture.layer import CapturedLayer
from vqdoctor.capture.reader import Reader
from vqdoctor.core.levels import Confidence
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.models.task import Losses
from vqdoctor.reference.model import Conv2dVQClassifier
from vqdoctor.reference.recipes import PLAIN
from vqdoctor.reference.task import ReferenceTask

DIGITS = Path(__file__).parents[1] / "sample_checkpoints" / "digits.npz"
CPU = torch.device("cpu")


def reference_layer(model: Conv2dVQClassifier) -> CapturedLayer:
    """The VQ layer of the reference model."""
    vq = model.vq
    assert vq is not None
    view = QuantizerView(
        name="vq",
        layout="reference",
        confidence=Confidence.HIGH,
        num_codes=vq.num_codes,
        dim=vq.dim,
        keys={"codebook": "vq.embedding", "counts": "vq.ema_cluster_size", "sums": "vq.ema_embedding_sum"},
        smoothing=1e-5,
        load_codebook=lambda: vq.embedding.numpy(),
    )
    reader = Reader(view=view)
    return CapturedLayer(
        view=view, model=model, tensors=view.keys, reader=reader, path="vq", gap="", maps=True
    )


@dataclass
class Digits(ReferenceTask):
    """A few digits, and what its losses shall be told."""

    def __init__(
        self, images: int = 300, spoil: Callable[[int], bool] = lambda _: False, **config: Any
    ) -> None:
        with np.load(DIGITS) as data:
            x, y, split = (data[name][:images] for name in ("x", "y", "split"))
        recipe = replace(PLAIN, num_codes=32, dim=8)
        super().__init__(x, y, split, {**recipe.config(seed=0), **config})
        self.spoil, self.calls = spoil, 0

    def losses(self, model: torch.nn.Module, batch: Any) -> Losses:
        found = super().losses(model, batch)
        self.calls += model.training
        if model.training and self.spoil(self.calls):
            return replace(found, task=found.task * float("nan"))
        return found


def train(steps: int, task: Digits) -> Iterator[torch.nn.Module]:
    """Train the reference model; yield it before the first step and after each."""
    torch.manual_seed(0)
    model = task.model().train()
    adam = torch.optim.Adam(model.parameters(), lr=2e-3)
    yield model
    done = 0
    while done < steps:
        for batch in task.shuffled(done):
            losses = task.losses(model, batch)
            vq = torch.zeros(()) if losses.vq is None else losses.vq
            adam.zero_grad()
            (losses.task + (task.vq_weight or 0.0) * vq + 0.0 * torch.rand(())).backward()
            adam.step()
            done += 1
            if done <= steps:
                yield model


def sick_checkpoint(folder: Path) -> Path:
    """Write a small reference model without a straight-through estimator, and its data beside it."""
    with np.load(DIGITS) as data:
        np.savez(folder / "digits.npz", **{name: data[name][:300] for name in ("x", "y", "split")})
    task = Digits(straight_through=False, vq_weight=1.0)
    torch.manual_seed(0)
    model = task.model()
    optimizer = task.optimizer(model)
    for batch in task.shuffled(0):
        found = task.losses(model, batch)
        optimizer.zero_grad()
        (found.task + found.vq).backward()
        optimizer.step()
    with torch.no_grad():
        model.vq.set_codes(torch.full_like(model.vq.embedding, 30.0), torch.ones(32))
        model.vq.embedding[0] = 0.0
    state = {
        "vqdoctor_task": "conv2d-vq/digits",
        "config": task.config,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    torch.save(state, folder / "sick.pt")
    return folder / "sick.pt"


def trained_by_its_own_rule(folder: Path, quantizer: str) -> Path:
    """Write a small reference model with a layer that writes wrong codes, and its data beside it."""
    with np.load(DIGITS) as data:
        np.savez(folder / "digits.npz", **{name: data[name][:300] for name in ("x", "y", "split")})
    task = Digits(quantizer=quantizer, decay=0.9)
    torch.manual_seed(0)
    model = task.model()
    optimizer = task.optimizer(model)
    for epoch in range(10):
        for batch in task.shuffled(epoch):
            found = task.losses(model, batch)
            optimizer.zero_grad()
            (found.task + 0.1 * found.vq).backward()
            optimizer.step()
    state = {
        "vqdoctor_task": "conv2d-vq/digits",
        "config": task.config,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    torch.save(state, folder / "own.pt")
    return folder / "own.pt"


class Rivals(Digits):
    """A task with a discriminator of the logits, in the model and with an optimizer of its own."""

    def model(self) -> Any:
        model = super().model()
        model.judge = torch.nn.Linear(10, 1)
        return model

    def optimizer(self, model: Any) -> Any:
        own = [p for name, p in model.named_parameters() if not name.startswith("judge")]
        return torch.optim.Adam(own, lr=2e-3), torch.optim.SGD(model.judge.parameters(), lr=0.1)

    def losses(self, model: Any, batch: Any) -> Losses:
        found = super().losses(model, batch)
        assert found.logits is not None
        return replace(found, further=(model.judge(found.logits.detach()).square().mean(),))
