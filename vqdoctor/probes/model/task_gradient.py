"""The gradient of the task loss around the VQ layer: does the encoder learn the task at all?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from vqdoctor.capture.run import Step
from vqdoctor.core.evidence import TaskGradient
from vqdoctor.probes.model._context import ModelContext, gradient
from vqdoctor.probes.model._gaps import each_layer


def measure(context: ModelContext) -> dict[str, TaskGradient]:
    """Return the task's gradient at z_q, at z_e, and before and after every layer."""
    return {name: _evidence(parts) for name, parts in context.over_steps(_look).items()}


def _look(step: Step) -> tuple[int, tuple[float | None, ...]]:
    """Return the number of vectors, and the square gradients at z_q, at z_e, before and after the layer."""
    grads = (gradient(step.losses.task, t) for t in (step.entered, step.z_e))
    squares = (None if grad is None else float(grad.square().sum()) for grad in grads)
    return step.vectors, (*squares, *_around(step, step.layer.path or ""))


def _evidence(parts: list[tuple[int, tuple[float | None, ...]]]) -> TaskGradient:
    roots = []
    columns: Iterator[tuple[float | None, ...]] = zip(*(squares for _, squares in parts), strict=True)
    for squares in columns:
        known = [square for square in squares if square is not None]
        roots.append((sum(known) / len(known)) ** 0.5 if known else None)
    output, input_, before, after = roots
    output = output or input_ or output  # a gradient that arrives around z_q: the estimator is outside
    return TaskGradient(
        source="batch",
        sample_size=sum(vectors for vectors, _ in parts),
        at_output=output,
        at_input=input_ or 0.0,
        ratio=(input_ or 0.0) / output if output else None,
        before=before,
        after=after,
    )


def _around(step: Step, path: str) -> tuple[float | None, float | None]:
    """Return the mean square gradient of the parameters before and after the layer, in model order."""
    place = {name: i for i, name in enumerate(step.model.state_dict())}
    inside = [i for name, i in place.items() if name.startswith(f"{path}.")]
    parameters = {n: p for n, p in step.model.named_parameters() if p.requires_grad}
    task = step.losses.task
    if not inside or not parameters or not task.requires_grad:
        return None, None
    grads: Sequence[torch.Tensor | None] = torch.autograd.grad(
        task, list(parameters.values()), retain_graph=True, allow_unused=True
    )
    around: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for (name, parameter), grad in zip(parameters.items(), grads, strict=True):
        if place[name] < inside[0] or place[name] > inside[-1]:
            # no path leads to a parameter without a gradient: it is zero
            flat = (torch.zeros_like(parameter) if grad is None else grad).flatten()
            around[place[name] > inside[-1]].append(flat)
    before, after = (float(torch.cat(g).square().mean()) if g else None for g in around)
    return before, after


PROBE = each_layer(TaskGradient, measure, mode="train", needs_codebook=False)
