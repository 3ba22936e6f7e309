"""The gradient of the task loss around the VQ layer: does the encoder learn the task at all?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import torch

from vqdoctor.capture.run import Step
from vqdoctor.core.evidence import Evidence, TaskGradient, Unavailable
from vqdoctor.probes.model._context import ModelContext, gradient
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.probe import Probe


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield the task's gradient at z_q, at z_e, and before and after every layer."""
    squares: dict[str, list[tuple[float | None, ...]]] = defaultdict(list)
    vectors: dict[str, int] = defaultdict(int)
    for steps in context.steps():
        for name, step in steps.items():
            task = step.losses.task
            at_output, at_input = (_square(gradient(task, t)) for t in (step.entered, step.z_e))
            squares[name].append((at_output, at_input, *_around(step, step.layer.path or "")))
            vectors[name] += step.vectors
    measured = {name: _evidence(name, vectors[name], parts) for name, parts in squares.items()}
    yield from by_layer(context, TaskGradient, measured)


def _evidence(name: str, vectors: int, parts: list[tuple[float | None, ...]]) -> TaskGradient:
    output, input_, before, after = (_root(column) for column in zip(*parts, strict=True))
    output = output or input_ or output  # what passes z_q by and arrives: the estimator stands outside
    return TaskGradient(
        layer=name,
        source="batch",
        sample_size=vectors,
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
    grads = torch.autograd.grad(task, list(parameters.values()), retain_graph=True, allow_unused=True)
    around: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for (name, parameter), grad in zip(parameters.items(), grads, strict=True):
        if place[name] < inside[0] or place[name] > inside[-1]:
            around[place[name] > inside[-1]].append(_flat(grad, parameter))
    before, after = (float(torch.cat(g).square().mean()) if g else None for g in around)
    return before, after


def _flat(grad: torch.Tensor | None, parameter: torch.Tensor) -> torch.Tensor:
    """Return the gradient, which is zero where no path leads to the parameter, as a vector."""
    return (torch.zeros_like(parameter) if grad is None else grad).flatten()


def _square(grad: torch.Tensor | None) -> float | None:
    return None if grad is None else float(grad.square().sum())


def _root(squares: tuple[float | None, ...]) -> float | None:
    known = [square for square in squares if square is not None]
    return (sum(known) / len(known)) ** 0.5 if known else None


PROBE = Probe(kinds=(TaskGradient,), measure=measure, mode="train", needs_codebook=False)
