"""One call of a module: what it was given, what it returned, and the same call again in another way."""

from __future__ import annotations

import copy
import dataclasses
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import nn

from vqdoctor.models.tensors import tensors_of
from vqdoctor.models.untouched import seed_all

Args = tuple[Any, ...]
Kwargs = Mapping[str, Any]
FAILURES = (RuntimeError, TypeError, ValueError, IndexError, KeyError, AssertionError)
"""Errors that a foreign layer may raise when it is asked in a way that its author did not foresee."""


@dataclass(kw_only=True)
class Call:
    """One call of a VQ layer, with the graph that autograd recorded.

    Nothing is copied: all tensors are the model's own, or detached views of them.

    Attributes:
        module: the module that was called, or whose method was.
        args: its arguments.
        kwargs: its keyword arguments.
        given: its float input, one of the arguments.
        z_e: the same, without its graph where no graph is kept.
        output: what it returned; None while it has not returned.
        z_q: the float output of that shape, or else one that differs in a single axis (a Gumbel layer's
            codes need not have the dimension of its input); None where the layer gives none.
        integers: all integer outputs; where there is none, the places of the ones in one-hot outputs.
        losses: the float outputs of one value each that have a gradient: the layer's own losses.
        training: whether the layer was in train mode.
        recorded: whether autograd was recording: not so under `no_grad`.
        autocast: the type that autocast was set to; None where it was off.
    """

    module: nn.Module
    args: Args = ()
    kwargs: Kwargs = field(default_factory=dict)
    given: torch.Tensor
    z_e: torch.Tensor
    output: Any = None
    z_q: torch.Tensor | None = None
    integers: tuple[torch.Tensor, ...] = ()
    losses: tuple[torch.Tensor, ...] = ()
    training: bool = False
    recorded: bool = True
    autocast: torch.dtype | None = None

    @classmethod
    def of(cls, module: nn.Module, args: Args, kwargs: Kwargs, z_e: torch.Tensor) -> Call:
        """Return a call that begins now."""
        device = z_e.device.type
        return cls(
            module=module,
            args=args,
            kwargs=kwargs,
            given=z_e,
            z_e=z_e,
            training=module.training,
            recorded=torch.is_grad_enabled(),
            autocast=torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None,
        )

    def take(self, output: Any) -> None:
        """Take z_q, the indices and the losses from what the layer returned."""
        self.output = output
        floats = [t for t in tensors_of(output) if t.is_floating_point() and t is not self.given]
        same = [t for t in floats if t.shape == self.z_e.shape]
        alike = [t for t in floats if t.ndim == self.z_e.ndim > 1 and len(t) == len(self.z_e)]
        in_one_axis = (t for t in alike if sum(map(operator.ne, t.shape, self.z_e.shape)) == 1)
        self.z_q = same[0] if same else next(in_one_axis, None)
        self.losses = tuple(t for t in floats if t.numel() == 1 and t.requires_grad and t is not self.z_q)
        self.integers = codes_in(output)

    @property
    def indices(self) -> torch.Tensor | None:
        """The first integer output; None where the layer gives none."""
        return self.integers[0] if self.integers else None

    @property
    def says_codes(self) -> bool:
        """Whether the call gave any output that shows its codes."""
        return self.z_q is not None or bool(self.integers)

    def again(
        self,
        seed: int,
        change: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor,
        module: nn.Module | None = None,
    ) -> Call:
        """Call the module, or another one, once more without a graph, and return that call.

        Args:
            seed: of the random state that it starts from.
            change: the change to each float argument.
            module: the module to call in place of its own.
        """
        asked = self.module if module is None else module
        args = tuple(_changed(value, change) for value in self.args)
        kwargs = {name: _changed(value, change) for name, value in self.kwargs.items()}
        seed_all(seed)
        with torch.no_grad():
            z_e = first_float((args, kwargs))
            assert z_e is not None
            call = Call.of(asked, args, kwargs, z_e)
            call.take(asked(*args, **kwargs))
        return call


def _changed(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return change(value)
    if type(value) in (tuple, list):
        return type(value)(_changed(item, change) for item in value)
    return value


def swap(value: Any, old: torch.Tensor, new: torch.Tensor) -> Any:
    """Return `value` with the tensor `old` replaced by `new`, in the same containers."""
    if value is old:
        return new
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(swap(item, old, new) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(swap(item, old, new) for item in value)
    if isinstance(value, Mapping) and hasattr(value, "__setitem__"):
        twin = copy.copy(value)  # a ModelOutput also sets the attribute of that name
        for key, item in value.items():
            twin[key] = swap(item, old, new)
        return twin
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        twin = copy.copy(cast("Any", value))
        for part in dataclasses.fields(value):
            object.__setattr__(twin, part.name, swap(getattr(value, part.name), old, new))
        return twin
    return value


def codes_in(output: Any) -> tuple[torch.Tensor, ...]:
    """Return possible codes in a layer's output: integers, or else the places of the ones in one-hot rows."""
    tensors = [t.detach() for t in tensors_of(output) if t.ndim]
    integers = tuple(t for t in tensors if is_integer(t))
    return integers or tuple(t.argmax(-1) for t in tensors if t.is_floating_point() and _is_one_hot(t))


def first_float(value: Any) -> torch.Tensor | None:
    """Return the first float tensor in arguments or an output; None where there is none."""
    return next((t for t in tensors_of(value) if t.is_floating_point()), None)


def is_integer(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds integers, which may be codes; masks are none."""
    return not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype != torch.bool


def _is_one_hot(tensor: torch.Tensor) -> bool:
    """Whether every row is zeros and a single one, as `encodings` of zalando's notebook are."""
    if tensor.ndim < 2 or tensor.shape[-1] < 2 or not tensor.numel():
        return False
    ones = tensor == 1
    return bool(((tensor == 0) | ones).all() and (ones.sum(-1) == 1).all())
