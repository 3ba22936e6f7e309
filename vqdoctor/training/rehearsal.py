"""The duration of a retraining before it begins: one batch is timed, on a copy of the model."""

from __future__ import annotations

import time
from itertools import islice

import torch

from vqdoctor.training.optimizer import optimizers_of
from vqdoctor.training.own_steps import OwnSteps
from vqdoctor.training.trainable import Trainable

TIMED = 3
"""Steps that are taken. The first allocates, so the fastest of them is the one that counts."""


def epoch_seconds(trainable: Trainable) -> tuple[int, float]:
    """Return the batches of an epoch, and the seconds that an epoch takes, without its evaluation."""
    batches = sum(1 for _ in trainable.splits.train(seed=0))
    return batches, batches * step_seconds(trainable)


def step_seconds(trainable: Trainable) -> float:
    """Return the seconds of one step, and of a look at a batch, as a stretch has as many of both.

    A step is the user's own losses, backward and optimizer.

    Raises:
        UserError: if the task serves no batch, or nothing of the model can be trained.
    """
    model, task = trainable.context.copy(training=True), trainable.context.task
    model.train()
    optimizers = optimizers_of(task, model, trainable.recipe)
    own = None
    if getattr(task, "trains_itself", False):
        own = OwnSteps(task=task, model=model, optimizers=optimizers)
    fastest = float("inf")
    for batch in islice(trainable.splits.in_order(), TIMED):
        started = time.perf_counter()
        if own is None:
            losses = task.losses(model, batch)
            total = losses.task if losses.vq is None else losses.task + losses.vq
            optimizers.step(total, losses.further, ())
        else:
            own.take(batch, ())
        with torch.no_grad():
            task.losses(model, batch)
        if trainable.context.device.type == "cuda":
            torch.cuda.synchronize()
        fastest = min(fastest, time.perf_counter() - started)
    return fastest
