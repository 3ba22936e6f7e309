"""A copy of the model in training, which an experiment may change before its first step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from vqdoctor.capture.error import QuantizationError
from vqdoctor.capture.layer import CapturedLayer, Change, passes, watching
from vqdoctor.core.evidence import NOT_FINITE
from vqdoctor.core.frozen import frozen
from vqdoctor.metrics.entropy import plug_in_entropy
from vqdoctor.models.device import moved
from vqdoctor.models.task import Batch
from vqdoctor.models.untouched import in_eval_mode, seed_all
from vqdoctor.probes.model._context import ModelContext

LEAST_RATE = 0.1
"""Least share of the optimizer's learning rate that a copy is trained with, where a schedule has lowered it:
at its last rate, which may be zero, no change would show."""


@frozen
class Held:
    """A copy's answers on the held batches, in eval mode.

    Attributes:
        losses: the task loss of each batch.
        perplexity: layer to exp of the plain entropy of its codes.
        error: layer to the squared error of its codes, as a share of the variance of z_e.
    """

    losses: tuple[float, ...]
    perplexity: dict[str, float]
    error: dict[str, float]

    @property
    def loss(self) -> float:
        """The mean task loss."""
        return sum(self.losses) / len(self.losses)


@dataclass(kw_only=True, eq=False)
class TrainedCopy:
    """A copy of the model with its own optimizer.

    Attributes:
        context: the model, its task and its layers.
        batches: the training batches, one for each step.
        model: the copy.
        layers: its VQ layers.
        optimizer: the task's own, or Adam.
        vq_weight: weight of the VQ loss in the loss that is minimised.
        behind: gives the tensor that the rest of the model gets in place of z_q.
        frozen: tensors that keep their values, each with these.
        losses: task loss of each step so far, before it.
    """

    context: ModelContext
    batches: Sequence[Batch]
    model: torch.nn.Module = field(init=False)
    layers: tuple[CapturedLayer, ...] = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)
    vq_weight: float = field(init=False)
    behind: Change | None = None
    frozen: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ()
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Copy the model."""
        self.model = self.context.copy(training=True)
        self.layers = self.context.on(self.model)
        self.optimizer = self.context.optimizer(self.model)
        self.vq_weight = 1.0 if self.context.vq_weight is None else self.context.vq_weight
        rate, last = float(self.optimizer.param_groups[0]["lr"]), self.context.last_rate
        if last is not None and last < rate:
            for group in self.optimizer.param_groups:
                group["lr"] = group["lr"] * max(last / rate, LEAST_RATE)

    def step(self, seed: int) -> bool:
        """Take the next optimizer step, if its loss is finite; return whether it is."""
        seed_all(seed)
        batch = moved(self.batches[len(self.losses) % len(self.batches)], self.context.device)
        with watching(self.layers, self.behind, keep_graph=True):
            losses = self.context.task.losses(self.model, batch)
        total = losses.task if losses.vq is None else losses.task + self.vq_weight * losses.vq
        self.losses.append(float(losses.task.detach()))
        if not math.isfinite(float(total.detach())):
            return False
        self.optimizer.zero_grad()
        if total.requires_grad:
            total.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        with torch.no_grad():
            for tensor, values in self.frozen:
                tensor.copy_(values)
        return True

    def held(self, batches: Sequence[Batch], seed: int) -> Held:
        """Return the answers on held batches; a loss that is not finite counts as `NOT_FINITE`."""
        seed_all(seed)
        losses: list[float] = []
        counts = {layer.name: torch.zeros(layer.num_codes, dtype=torch.float64) for layer in self.layers}
        errors = {layer.name: QuantizationError() for layer in self.layers}
        served = (moved(batch, self.context.device) for batch in batches)
        with in_eval_mode(self.model), torch.no_grad():
            for _, found, watched in passes(self.model, self.context.task, served, self.layers, self.behind):
                loss = float(found.task)
                losses.append(min(loss, NOT_FINITE) if math.isfinite(loss) else NOT_FINITE)
                for layer in self.layers:
                    chosen = layer.counts(watched)
                    if chosen is not None:
                        counts[layer.name] += chosen
                    errors[layer.name].add(layer, watched)
        return Held(
            losses=tuple(losses),
            perplexity={
                name: math.exp(plug_in_entropy(used.numpy()))
                for name, used in counts.items()
                if used.sum() > 0
            },
            error={name: found.share for name, found in errors.items() if found.share is not None},
        )
