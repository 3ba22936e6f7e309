"""Training the reference model by a recipe, the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vqdoctor.core.frozen import frozen
from vqdoctor.reference.chain.model import ChainClassifier
from vqdoctor.reference.model import Conv2dVQClassifier, Quantizer
from vqdoctor.reference.recipes import Recipe
from vqdoctor.reference.task import DIGITS, DataSet, ReferenceTask
from vqdoctor.training.schedule import warm_up
from vqdoctor.vq.kmeans import kmeans
from vqdoctor.vq.revival import revive

Progress = Callable[[Mapping[str, float]], None]


@frozen
class TrainedModel:
    """The result of a training.

    Attributes:
        model: the trained model, in eval mode.
        optimizer: its Adam, as the last step left it.
        task: its task, with the settings that the checkpoint records.
        history: one row an epoch: mean task loss, mean VQ loss, and the codes that were revived.
        checkpoint: what a user's script would hand to torch.save.
    """

    model: Conv2dVQClassifier | ChainClassifier
    optimizer: torch.optim.Optimizer
    task: ReferenceTask
    history: tuple[Mapping[str, float], ...]
    checkpoint: Mapping[str, Any]


def train(
    recipe: Recipe,
    data: Mapping[str, NDArray[np.generic]],
    seed: int,
    progress: Progress | None = None,
    *,
    data_set: DataSet = DIGITS,
) -> TrainedModel:
    """Train the reference model on the "train" split.

    Everything random hangs on `seed`; the global random state is as before afterwards.

    Args:
        recipe: the switches.
        data: arrays x [N, channels, H, T], y [N] and split [N], as in the data set's file.
        seed: the seed.
        progress: called with each row of the history.
        data_set: what the data is.
    """
    config = recipe.config(seed)
    task = data_set.make(config, data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = task.model()
    optimizer = task.optimizer(model)
    run = _Run(recipe, task, model, optimizer, torch.Generator().manual_seed(seed))
    history = []
    for epoch in range(recipe.epochs):
        if recipe.data_init and epoch == recipe.data_init_epoch and model.vq is not None:
            run.place_codes(model.vq)
        row = {"epoch": float(epoch), **run.train(epoch)}
        history.append(row)
        if progress is not None:
            progress(row)
    model.eval()
    checkpoint = {
        "vqdoctor_task": data_set.task,
        "config": config,
        "epoch": recipe.epochs,
        "global_step": recipe.epochs * len(list(task.batches("train"))),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    return TrainedModel(
        model=model, optimizer=optimizer, task=task, history=tuple(history), checkpoint=checkpoint
    )


@torch.no_grad()
def encode(model: Conv2dVQClassifier | ChainClassifier, x: torch.Tensor) -> torch.Tensor:
    """Return z_e of images [B, channels, H, T] as vectors [B × positions, D]."""
    z_e: torch.Tensor = model.encoder(x)
    return z_e.permute(0, 2, 3, 1).reshape(-1, z_e.shape[1])


@dataclass(frozen=True)
class _Run:
    """One training of one model."""

    recipe: Recipe
    task: ReferenceTask
    model: Conv2dVQClassifier | ChainClassifier
    optimizer: torch.optim.Optimizer
    generator: torch.Generator

    def place_codes(self, vq: Quantizer) -> None:
        """Put the codebook where the data is, with the counts that a batch would have given."""
        images, _ = self.task.data["train"]
        vectors = vq.compared(encode(self.model, images))
        clusters = kmeans(vectors, vq.num_codes, generator=self.generator)
        share = self.recipe.batch_size * (len(vectors) / len(images)) / int(clusters.counts.sum())
        vq.set_codes(clusters.centres, clusters.counts * share)

    def train(self, epoch: int) -> dict[str, float]:
        """Train for one epoch, and revive dead codes after it unless it is the last: they need training."""
        model, recipe = self.model, self.recipe
        weight = recipe.vq_weight * warm_up(epoch, recipe.warm_up_epochs)
        model.train()
        losses = []
        images, labels = self.task.data["train"]
        order = torch.randperm(len(images), generator=self.generator)
        for rows in torch.split(order, recipe.batch_size):
            loss = self.task.losses(model, (images[rows], labels[rows]))
            vq_loss = torch.zeros(()) if loss.vq is None else loss.vq
            self.optimizer.zero_grad()
            (loss.task + weight * vq_loss).backward()  # type: ignore[no-untyped-call]
            if recipe.clip_gradients > 0:
                torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_gradients)
            self.optimizer.step()
            losses.append((loss.task.item(), vq_loss.item()))
        revived = 0
        if model.vq is not None and recipe.revive_under > 0 and epoch + 1 < recipe.epochs:
            revived = self.revive(model.vq)
        task_loss, mean_vq_loss = np.mean(losses, axis=0)
        return {"task_loss": float(task_loss), "vq_loss": float(mean_vq_loss), "revived": float(revived)}

    def revive(self, vq: Quantizer) -> int:
        """Revive the codes that the whole train split hardly chooses; return how many."""
        images, _ = self.task.data["train"]
        self.model.eval()
        with torch.no_grad():
            indices = self.model(images)["indices"]
        usage = torch.bincount(indices.flatten(), minlength=vq.num_codes).double()
        vectors, under = vq.compared(encode(self.model, images)), self.recipe.revive_under
        return len(
            revive(vq.codebook, usage=usage, vectors=vectors, generator=self.generator, threshold=under)
        )
