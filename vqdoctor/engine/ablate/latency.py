"""How long a model takes for a batch, measured alone: nothing else of the study runs meanwhile."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import torch

from vqdoctor.capture.call import Call, swap
from vqdoctor.capture.layer import CapturedLayer, watching
from vqdoctor.capture.observe import Scored
from vqdoctor.capture.watch import replaced
from vqdoctor.core.ablation import Latency
from vqdoctor.engine.ablate.cells import Training
from vqdoctor.models.untouched import same_randomness
from vqdoctor.training.trainable import Trainable
from vqdoctor.training.treatment import reshaped

WARM_UP, TIMED = 10, 100
"""Batches before the first that is timed, and batches that are."""


def time_batches(found: Trainable, run: str, training: Training) -> Latency:
    """Time the forward passes of a model in eval mode, on the first batch of the val split.

    The weights are as the training begins: the time of a pass is the same with any.

    Args:
        found: the model.
        run: name of the training.
        training: the training; without VQ, its layers are left out and not only bypassed.
    """
    with same_randomness(training.plan.seed):
        trainer = found.trainer(training.plan, without_vq=training.without_vq)
    model, task, plan = trainer.model.eval(), trainer.task, training.plan
    layers = () if training.without_vq else trainer.layers
    batch, watch, took = next(iter(found.splits.val())), _Watch(found.context.device), []
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(reshaped(layers, plan.geometry, full_precision=plan.full_precision))
        if training.without_vq:
            with watching(trainer.layers, keep_graph=True) as watched:
                task.losses(model, batch)
            for layer in trainer.layers:
                for call in layer.calls(watched)[:1]:
                    stack.enter_context(_left_out(layer, call))
        stack.callback(model.register_forward_pre_hook(lambda *_: watch.start()).remove)
        stack.callback(model.register_forward_hook(lambda *_: watch.stop()).remove)
        for _ in range(WARM_UP + TIMED):
            watch.spent, start = 0.0, watch.now()
            losses = task.losses(model, batch)
            took.append(watch.spent or watch.now() - start)  # all of it where the model itself is not called
    milliseconds = 1000 * np.array(took[WARM_UP:])
    return Latency(
        run=run,
        samples=Scored.of(losses, batch).samples,
        p50=float(np.quantile(milliseconds, 0.5)),
        p95=float(np.quantile(milliseconds, 0.95)),
    )


class _Watch:
    """Adds up the time between starts and stops, in seconds."""

    def __init__(self, device: torch.device) -> None:
        self.spent, self._started, self._device = 0.0, 0.0, device

    def now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def start(self) -> None:
        self._started = self.now()

    def stop(self) -> None:
        self.spent += self.now() - self._started


def _left_out(layer: CapturedLayer, call: Call) -> contextlib.AbstractContextManager[None]:
    """Let a layer answer at once, with z_e in the place of z_q."""

    def forward(z_e: torch.Tensor, *_: object, **__: object) -> object:
        return z_e if call.z_q is None else swap(call.output, call.z_q, z_e)

    return replaced(layer.module, "forward", forward)
