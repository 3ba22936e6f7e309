"""A rounding that a model writes into its own forward (FSQ, BSQ as a function), shown as calls of a module.

No module has z_e for its input and the rounded vectors for its output then. So a working copy gets a
stand-in, and while the task runs, the operation that puts out the rounded vectors passes through it: the
straight-through estimator `z + (q - z).detach()`, or the rounding itself where no estimator follows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from vqdoctor.core.frozen import frozen
from vqdoctor.models.tensors import tensors_of

PATH = "rounding_in_forward"
"""Path of the stand-in, and name of the layer."""
_SUMS = ("add", "__add__", "__radd__", "sub", "__sub__", "__rsub__")
"""Operations that put an estimator together."""
_ROUNDS = ("round", "sign", "floor", "ceil")
_SAMPLE, _MOST, _FEW = 2048, 64, 4
"""Numbers of a tensor that are looked at; the most values of a rounded one among them; and the least ratio
of the values before the rounding and after it."""
_ROUNDING = 1e-4
"""Share of the largest number under which differences are rounding errors."""
_LARGEST = 1e3
"""Largest number of a rounded vector: masks of attention are far larger."""


@frozen
class Rounded:
    """One operation that puts out rounded vectors.

    Attributes:
        z_e: the vectors that it got.
        z_q: the rounded ones.
        estimator: whether it is a sum, as that of the straight-through estimator, and no rounding itself.
    """

    z_e: torch.Tensor
    z_q: torch.Tensor
    estimator: bool


class Rounding(nn.Module):
    """The stand-in: vectors in, the vectors that the model itself rounded them to out."""

    def __init__(self, *, estimator_in_training: bool, estimator_in_eval: bool) -> None:
        """Make a stand-in that has seen no rounding yet."""
        super().__init__()
        self.estimators = {True: estimator_in_training, False: estimator_in_eval}
        self.found: list[torch.Tensor] = []
        self.values = torch.zeros(1)

    def forward(self, z_e: torch.Tensor) -> torch.Tensor:
        """Return the rounded vectors; outside of the model's rounding the nearest of the latest values."""
        if self.found:
            z_q = self.found.pop()
            self.values = torch.unique(z_q.detach())
            return z_q
        nearest = (z_e.detach().unsqueeze(-1) - self.values.to(z_e)).abs().argmin(-1)
        return self.values.to(z_e)[nearest]


def attach_rounding(model: nn.Module, *, estimator_in_training: bool, estimator_in_eval: bool) -> None:
    """Put a stand-in into a working copy, if there is none yet."""
    if PATH not in model._modules:
        form = {"estimator_in_training": estimator_in_training, "estimator_in_eval": estimator_in_eval}
        model.add_module(PATH, Rounding(**form).train(model.training))


@contextlib.contextmanager
def roundings_shown(model: nn.Module) -> Iterator[None]:
    """Let the model's rounding pass through its stand-in; without one nothing changes."""
    stand_in = model._modules.get(PATH)

    def show(rounded: Rounded) -> torch.Tensor | None:
        assert isinstance(stand_in, Rounding)
        if rounded.estimator is not stand_in.estimators[stand_in.training]:
            return None
        stand_in.found = [rounded.z_q]
        shown: torch.Tensor = stand_in(rounded.z_e)
        return shown

    with _Watching(show) if isinstance(stand_in, Rounding) else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def roundings_found() -> Iterator[list[Rounded]]:
    """Find the operations that put out rounded vectors, filled while the context lasts."""
    found: list[Rounded] = []

    def note(rounded: Rounded) -> None:
        found.append(rounded)

    with _Watching(note):
        yield found


class _Watching(TorchFunctionMode):
    """Reports every operation that puts out rounded vectors of its input."""

    def __init__(self, tell: Callable[[Rounded], torch.Tensor | None]) -> None:
        super().__init__()
        self._tell = tell

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name not in _SUMS + _ROUNDS or not isinstance(output, torch.Tensor) or output.ndim < 2:
            return output
        if not output.is_floating_point() or not 1 < (values := _values(output)) <= _MOST:
            return output
        given = [t for t in tensors_of((args, kwargs or {})) if t.shape == output.shape]
        fine = [t for t in given if t.is_floating_point() and _values(t) >= _FEW * values]
        if not fine:
            return output
        z_e = min(fine, key=lambda t: (not t.requires_grad, float((output - t).detach().abs().max())))
        shown = self._tell(Rounded(z_e=z_e, z_q=output, estimator=name in _SUMS))
        return output if shown is None else shown


def _values(tensor: torch.Tensor) -> int:
    """Return the number of values in a sample, up to rounding; 0 if a number is infinite or too large."""
    sample = tensor.detach().flatten()[:_SAMPLE].float()
    largest = sample.abs().max() if sample.numel() else torch.tensor(torch.inf)
    if not bool(largest.isfinite()) or largest > _LARGEST:
        return 0
    return len(torch.unique((sample / (_ROUNDING * largest.clamp_min(1e-12))).round()))
