"""The gradients of one batch's losses, each computed once, at all tensors that probes ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.autograd.function import BackwardCFunction

from vqdoctor.models.task import Losses


@dataclass(frozen=True, kw_only=True, eq=False)
class Pulls:
    """The gradients of a batch: one backward pass for the task loss, and one for the VQ loss.

    Attributes:
        model: the copy that ran.
        losses: its losses.
        at: tensors of interest: each layer's input, output and codebook.
    """

    model: torch.nn.Module
    losses: Losses
    at: Sequence[torch.Tensor]

    @cached_property
    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        """The parameters that require a gradient, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def of(self, loss: torch.Tensor | None, at: torch.Tensor) -> torch.Tensor | None:
        """Return the gradient of a loss at a tensor, keeping the graph; None where no path leads there."""
        if loss is None or not loss.requires_grad or not at.requires_grad:
            return None
        return self.all_of(loss, [at])[0]

    def all_of(self, loss: torch.Tensor, at: Sequence[torch.Tensor]) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of a loss at tensors that require one."""
        known = self._task if loss is self.losses.task else self._vq if loss is self.losses.vq else {}
        if not all(id(tensor) in known for tensor in at):
            known = _at_once(loss, at)
        return tuple(known[id(tensor)] for tensor in at)

    @cached_property
    def of_task(self) -> dict[str, torch.Tensor]:
        """The gradients of the task loss at the parameters to which a path leads, by name."""
        if not self.losses.task.requires_grad:
            return {}
        found = {name: self._task[id(p)] for name, p in self.parameters.items()}
        return {name: gradient for name, gradient in found.items() if gradient is not None}

    def forget(self) -> None:
        """Free the gradients; they are computed again where one is asked for."""
        for name in ("of_task", "_task", "_vq"):
            vars(self).pop(name, None)

    @cached_property
    def _task(self) -> dict[int, torch.Tensor | None]:
        return _at_once(self.losses.task, (*self.at, *self.parameters.values()))

    @cached_property
    def _vq(self) -> dict[int, torch.Tensor | None]:
        assert self.losses.vq is not None
        return _at_once(self.losses.vq, self.at)


def _at_once(loss: torch.Tensor, at: Iterable[torch.Tensor]) -> dict[int, torch.Tensor | None]:
    """Return the gradients by the identity of the tensors; None where no path leads to one."""
    asked = {id(tensor): tensor for tensor in at if tensor.requires_grad}
    if not asked:
        return {}
    found: Sequence[torch.Tensor | None] = torch.autograd.grad(
        loss, list(asked.values()), retain_graph=True, allow_unused=True
    )
    return dict(zip(asked, found, strict=True))


def leads_to(loss: torch.Tensor | None, tensor: torch.Tensor | None) -> bool:
    """Return whether a gradient of a loss arrives at a tensor, keeping the graph."""
    if loss is None or tensor is None or not loss.requires_grad or not tensor.requires_grad:
        return False
    return _at_once(loss.sum(), [tensor])[id(tensor)] is not None


def leading_to(tensor: torch.Tensor, parameters: Mapping[str, torch.nn.Parameter]) -> set[str]:
    """Return the names of the parameters that a tensor's gradient would reach.

    The graph tells them without a backward pass. A custom function may stop a gradient: then one is made.
    """
    if not tensor.requires_grad or not parameters:
        return set()
    names = {id(p): name for name, p in parameters.items()}
    found: set[str] = {names[id(tensor)]} if id(tensor) in names else set()
    left: list[Any] = [] if tensor.grad_fn is None else [tensor.grad_fn]
    seen = set(left)
    while left:
        node = left.pop()
        if isinstance(node, BackwardCFunction):
            return _reached(tensor, parameters)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) in names:
            found.add(names[id(variable)])
        fresh = [inner for inner, _ in node.next_functions if inner is not None and inner not in seen]
        seen.update(fresh)
        left += fresh
    return found


def _reached(tensor: torch.Tensor, parameters: Mapping[str, torch.nn.Parameter]) -> set[str]:
    found: Sequence[torch.Tensor | None] = torch.autograd.grad(
        tensor,
        list(parameters.values()),
        torch.ones_like(tensor),
        retain_graph=True,
        allow_unused=True,
    )
    return {name for name, gradient in zip(parameters, found, strict=True) if gradient is not None}
