"""One step of the task's own optimizer beside the weights that it moves, where the file records none."""

from __future__ import annotations

import math
from statistics import median, median_low

import torch

from vqdoctor.core.evidence import StepSize
from vqdoctor.probes.model._context import ModelContext, outside
from vqdoctor.probes.model._gaps import of_model
from vqdoctor.probes.probe import Missing


def measure(context: ModelContext) -> StepSize:
    """Return the size of a step; the file's own record outranks the task's word."""
    if context.record is not None and context.record.learning_rate is not None:
        raise Missing("the file records the learning rate")
    own = context.own_optimizer()
    if own is None:
        raise Missing("the task has no optimizer")
    model, optimizer = own
    paths = [layer.path for layer in context.layers.values() if layer.path]
    weights = {id(p) for p in outside(model, paths).values() if p.ndim > 1 and p.numel()}
    moved = [
        (float(group["lr"]), weight)
        for group in optimizer.param_groups
        if "betas" in group
        for weight in group["params"]
        if id(weight) in weights
    ]
    if not moved:
        raise Missing("the task's optimizer is of another kind than Adam, whose steps have a known size")
    rate = median_low(rate for rate, _ in moved)
    step = median(rate * math.sqrt(_inputs(weight)) for rate, weight in moved)
    return StepSize(
        source="batch",
        sample_size=len(moved),
        learning_rate=rate,
        highest_rate=rate,
        updates=0,
        step=step,
        highest_step=step,
        growth=median(
            _size(p) for group in optimizer.param_groups for p in group["params"] if id(p) in weights
        ),
    )


def _inputs(weight: torch.Tensor) -> int:
    """Return how many numbers each output is made of, in torch's order of axes: out, in, and a kernel's."""
    return weight.numel() // len(weight)


def _size(weight: torch.Tensor) -> float:
    """Return the root mean square of a weight in units of 1 / sqrt(inputs)."""
    return math.sqrt(_inputs(weight) * float(weight.detach().double().square().mean()))


PROBE = of_model(StepSize, measure, mode=None)
