"""The gradients of the losses at every module with parameters, in the order in which the modules run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from vqdoctor.capture.pulls import Pulls
from vqdoctor.core.evidence import GradientProfile
from vqdoctor.core.evidence.shown import MOST_MODULES
from vqdoctor.probes._plane import short
from vqdoctor.probes.model._context import ModelContext, square_sum
from vqdoctor.probes.model._gaps import of_model
from vqdoctor.probes.model._looks import Looking, shared
from vqdoctor.probes.probe import Missing


@shared(passes=1)
def look(context: ModelContext) -> Looking[GradientProfile]:
    """See the gradients of the first training batch."""
    # One story: the modules, their order, their gradients, and what is drawn of them.
    steps = yield None
    if steps is None:
        raise Missing("the task has no training batches")
    pulls, paths = steps.pulls, tuple(dict.fromkeys(la.path for la in context.layers.values() if la.path))
    holders = {path: _own(module) for path, module in pulls.model.named_modules()}
    asked = {path: own for path, own in holders.items() if own and not _inside(path, paths)}
    order = _order([path for path in holders if path in asked or path in paths], steps.order)
    parameters = {path: asked[path] for path in order if path in asked}
    if not pulls.losses.task.requires_grad or not parameters:
        raise Missing("the task loss has no gradient at any parameter")
    task = _squares(pulls.losses.task, parameters, pulls)
    weight, loss = context.vq_weight, pulls.losses.vq
    vq = None if loss is None or not loss.requires_grad else _squares(loss, parameters, pulls)
    groups = _together(order, paths)
    return GradientProfile(
        source="batch",
        sample_size=sum(p.numel() for own in parameters.values() for p in own),
        modules=tuple(groups),
        is_vq=tuple(name in paths for name in groups),
        task=_roots(groups, parameters, task),
        vq=() if vq is None else _roots(groups, parameters, vq, 1.0 if weight is None else abs(weight)),
        vq_weight=weight,
    )


def measure(context: ModelContext) -> GradientProfile:
    """Return the gradients on the first training batch."""
    return look.at(context)


def _own(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters(recurse=False) if p.requires_grad]


def _inside(path: str, paths: tuple[str, ...]) -> bool:
    return any(path == layer or path.startswith(f"{layer}.") for layer in paths)


def _order(registered: Sequence[str], calls: Sequence[str]) -> list[str]:
    """Return the modules in the order of their first calls; one that is not called follows its neighbour."""
    first: dict[str, int] = {}
    for number, path in enumerate(calls):
        first.setdefault(path, number)
    places, last = {}, -1
    for path in registered:
        last = places[path] = first.get(path, last)
    return sorted(registered, key=lambda path: places[path])


def _squares(loss: torch.Tensor, parameters: dict[str, list[nn.Parameter]], pulls: Pulls) -> dict[str, float]:
    """Return the sum of the loss's squared gradients at each module's parameters."""
    flat = [p for own in parameters.values() for p in own]
    found = iter(pulls.all_of(loss, flat))
    grads = {path: [next(found) for _ in own] for path, own in parameters.items()}
    known = {path: [g for g in of if g is not None] for path, of in grads.items()}
    return {path: sum(map(square_sum, of)) for path, of in known.items()}


def _together(order: list[str], paths: tuple[str, ...]) -> dict[str, list[str]]:
    """Return names and the modules under each: by as many parts of their paths as the limit allows."""
    for parts in range(max(path.count(".") for path in order) + 1, 0, -1):
        groups: dict[str, list[str]] = {}
        for path in order:
            groups.setdefault(path if path in paths else ".".join(path.split(".")[:parts]), []).append(path)
        if len(groups) <= MOST_MODULES:
            break
    return dict(list(groups.items())[:MOST_MODULES])


def _roots(
    groups: dict[str, list[str]],
    parameters: dict[str, list[nn.Parameter]],
    squares: dict[str, float],
    factor: float = 1.0,
) -> tuple[float, ...]:
    """Return the root mean square gradient of each group, times a factor; 0 for a VQ layer alone."""
    roots = []
    for paths in groups.values():
        size = sum(p.numel() for path in paths for p in parameters.get(path, ()))
        total = sum(squares.get(path, 0.0) for path in paths)
        roots.append(factor * (total / size) ** 0.5 if size else 0.0)
    return short(torch.tensor(roots, dtype=torch.float64).numpy())


PROBE = of_model(GradientProfile, measure, mode="train")
