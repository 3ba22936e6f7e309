"""Training the reference model by a recipe, the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vqdoctor.reference.model import Conv2dVQClassifier, Quantizer
from vqdoctor.reference.recipes import Recipe
from vqdoctor.reference.task import DIGITS, Batch, DataSet, ReferenceTask
from vqdoctor.training.schedule import warm_up
from vqdoctor.vq.kmeans import kmeans
from vqdoctor.vq.revival import revive

Progress = Callable[[Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """The result of a training.

    Attributes:
        model: the trained model, in eval mode.
        optimizer: its Adam, as the last step left it.
        task: its task, with the settings that the checkpoint records.
        history: one row an epoch: mean task loss, mean VQ loss, and the codes that were revived.
        checkpoint: what a user's script would hand to torch.save.
    """

    model: Conv2dVQClassifier
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
    task = ReferenceTask(data["x"], data["y"], data.get("split"), config, classes=data_set.classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = task.model()
    generator = torch.Generator().manual_seed(seed)
    optimizer = task.optimizer(model)
    history = []
    for epoch in range(recipe.epochs):
        if recipe.data_init and epoch == recipe.data_init_epoch and model.vq is not None:
            _place_codes(model, model.vq, task, recipe, generator)
        row = {"epoch": float(epoch), **_epoch(model, optimizer, task, recipe, epoch, generator)}
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
def encode(model: Conv2dVQClassifier, x: torch.Tensor) -> torch.Tensor:
    """Return z_e of images [B, channels, H, T] as vectors [B × positions, D]."""
    z_e: torch.Tensor = model.encoder(x)
    return z_e.permute(0, 2, 3, 1).reshape(-1, z_e.shape[1])


def _place_codes(
    model: Conv2dVQClassifier,
    vq: Quantizer,
    task: ReferenceTask,
    recipe: Recipe,
    generator: torch.Generator,
) -> None:
    """Put the codebook where the data is, with the counts that a batch would have given."""
    images, _ = task.data["train"]
    vectors = encode(model, images)
    clusters = kmeans(vectors, vq.num_codes, generator=generator)
    share = recipe.batch_size * (len(vectors) / len(images)) / int(clusters.counts.sum())
    vq.set_codes(clusters.centres, clusters.counts * share)


def _epoch(
    model: Conv2dVQClassifier,
    optimizer: torch.optim.Optimizer,
    task: ReferenceTask,
    recipe: Recipe,
    epoch: int,
    generator: torch.Generator,
) -> dict[str, float]:
    """Train for one epoch, and revive dead codes after it unless it is the last: they need training."""
    weight = recipe.vq_weight * warm_up(epoch, recipe.warm_up_epochs)
    model.train()
    losses = []
    for batch in _shuffled(task.data["train"], recipe.batch_size, generator):
        loss = task.losses(model, batch)
        vq_loss = torch.zeros(()) if loss.vq is None else loss.vq
        optimizer.zero_grad()
        (loss.task + weight * vq_loss).backward()  # type: ignore[no-untyped-call]
        if recipe.clip_gradients > 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_gradients)
        optimizer.step()
        losses.append((loss.task.item(), vq_loss.item()))
    revived = 0
    if model.vq is not None and recipe.revive_under > 0 and epoch + 1 < recipe.epochs:
        revived = _revive(model, model.vq, task, recipe, generator)
    task_loss, mean_vq_loss = np.mean(losses, axis=0)
    return {"task_loss": float(task_loss), "vq_loss": float(mean_vq_loss), "revived": float(revived)}


def _shuffled(data: Batch, size: int, generator: torch.Generator) -> Iterator[Batch]:
    images, labels = data
    for rows in torch.split(torch.randperm(len(images), generator=generator), size):
        yield images[rows], labels[rows]


def _revive(
    model: Conv2dVQClassifier,
    vq: Quantizer,
    task: ReferenceTask,
    recipe: Recipe,
    generator: torch.Generator,
) -> int:
    """Revive the codes that the whole train split hardly chooses."""
    images, _ = task.data["train"]
    model.eval()
    with torch.no_grad():
        indices = model(images)["indices"]
    usage = torch.bincount(indices.flatten(), minlength=vq.num_codes)
    revived = revive(
        vq.codebook,
        usage=usage.double(),
        vectors=encode(model, images),
        generator=generator,
        threshold=recipe.revive_under,
    )
    return len(revived)
