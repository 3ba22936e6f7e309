"""Leaving no mark: working on a copy, and proving that the original is bit-equal afterwards."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class TouchedError(AssertionError):
    """An examination changed the user's model or random state: a bug of vqdoctor."""


def working_copy(model: torch.nn.Module, *, training: bool) -> torch.nn.Module:
    """Return a deep copy in train or eval mode, without the original's gradients."""
    twin = copy.deepcopy(model)
    twin.zero_grad(set_to_none=True)
    return twin.train(training)


@contextmanager
def untouched(model: torch.nn.Module, seed: int) -> Iterator[None]:
    """Seed the random state inside, restore it outside, and prove the model bit-equal.

    Raises:
        TouchedError: if a parameter, buffer, gradient, mode or hook of `model` changed inside.
    """
    before = _marks(model)
    devices = sorted({t.device.index or 0 for t in model.state_dict().values() if t.is_cuda})
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
    after = _marks(model)
    changed = [name for name, value in before.items() if not _same(value, after.get(name))]
    if changed or before.keys() != after.keys():
        raise TouchedError(f"the examination changed {', '.join(changed[:5]) or 'the set of tensors'}")


def _marks(model: torch.nn.Module) -> dict[str, Any]:
    marks: dict[str, Any] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        marks[name] = tensor.detach().clone()
        marks[f"{name} (gradient)"] = None if tensor.grad is None else tensor.grad.clone()
        marks[f"{name} (identity)"] = (id(tensor), tensor.requires_grad)
    for name, module in model.named_modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        marks[f"{name} (mode and hooks)"] = (module.training, *(tuple(h) for h in hooks))
    return marks


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        # bytes, not values: NaN must equal itself
        return one.dtype == other.dtype and torch.equal(_bytes(one), _bytes(other))
    return bool(one == other)


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)
