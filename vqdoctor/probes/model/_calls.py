"""A VQ layer's call as the model made it, so that the layer alone can be asked again, in another way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vqdoctor.capture.vectors import channel_axis
from vqdoctor.capture.watch import codes_in, swap
from vqdoctor.models.task import Losses
from vqdoctor.models.tensors import tensors_of
from vqdoctor.models.untouched import seed_all
from vqdoctor.probes.model._context import ModelContext

FAILURES = (RuntimeError, TypeError, ValueError, IndexError, KeyError, AssertionError)
"""What a foreign layer may raise when it is asked in a way that its author did not foresee."""
Convert = Callable[[torch.Tensor], torch.Tensor]


@dataclass(kw_only=True)
class LayerCall:
    """One call of a layer.

    Attributes:
        layer: the module, on the copy that ran.
        args: its arguments.
        kwargs: its keyword arguments.
        output: what it returned.
        autocast: the type that autocast was set to during the call; None where it was off.
    """

    layer: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any = None
    autocast: torch.dtype | None = None

    @property
    def z_e(self) -> torch.Tensor:
        """The layer's input: the first tensor of floats among the arguments."""
        return next(t for t in tensors_of((self.args, self.kwargs)) if t.is_floating_point())

    @property
    def z_q(self) -> torch.Tensor | None:
        """The float output of the input's shape."""
        return quantized(self.output, self.z_e)

    @property
    def indices(self) -> torch.Tensor | None:
        """The output that may be codes."""
        return chosen(self.output)

    def axis(self, dim: int) -> int:
        """Return the axis of the vectors' elements."""
        shape = None if self.indices is None else tuple(self.indices.shape)
        return channel_axis(tuple(self.z_e.shape), dim, shape, self.z_q)

    def again(self, seed: int, change: Convert, layer: nn.Module | None = None) -> Any:
        """Call the layer, or another one, with its float arguments changed, from the same random state."""
        args = tuple(_changed(value, change) for value in self.args)
        kwargs = {name: _changed(value, change) for name, value in self.kwargs.items()}
        seed_all(seed)
        with torch.no_grad():
            return (layer or self.layer)(*args, **kwargs)


def quantized(output: Any, z_e: torch.Tensor) -> torch.Tensor | None:
    """Return the float tensor of z_e's shape in an output; None where there is none."""
    return next((t for t in tensors_of(output) if t.is_floating_point() and t.shape == z_e.shape), None)


def chosen(output: Any) -> torch.Tensor | None:
    """Return the first tensor in an output that may be codes; None where there is none."""
    return next(iter(codes_in(output)), None)


def first_calls(
    context: ModelContext, paths: Mapping[str, str], *, training: bool
) -> tuple[dict[str, LayerCall], Losses | None]:
    """Run a copy on the first training batch and return each layer's first call, and the losses.

    In training all is in one graph, and a layer's input requires a gradient even if its encoder is
    frozen. Otherwise there is no graph, and the batch serves as data only.
    """
    model = context.copy(training=training)
    calls: dict[str, LayerCall] = {}
    if not context._train_batches:
        return calls, None
    with contextlib.ExitStack() as stack:
        for name, path in paths.items():
            stack.enter_context(_recording(calls, name, model.get_submodule(path), training))
        stack.enter_context(contextlib.nullcontext() if training else torch.no_grad())
        seed_all(context.seed)
        losses = context.task.losses(model, context._train_batches[0])
    return {name: call for name, call in calls.items() if call.output is not None}, losses


@contextlib.contextmanager
def _recording(calls: dict[str, LayerCall], name: str, layer: nn.Module, training: bool) -> Iterator[None]:
    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name in calls or not any(t.is_floating_point() for t in tensors_of((args, kwargs))):
            return None
        call = LayerCall(layer=layer, args=args, kwargs=kwargs)
        if training and not call.z_e.requires_grad:
            call.args, call.kwargs = swap((args, kwargs), call.z_e, call.z_e.detach().requires_grad_())
        device = call.z_e.device.type
        call.autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        calls[name] = call
        return call.args, call.kwargs

    def after(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if name in calls and calls[name].output is None:
            calls[name].output = output

    handles = [layer.register_forward_pre_hook(before, with_kwargs=True), layer.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _changed(value: Any, change: Convert) -> Any:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return change(value)
    if type(value) in (tuple, list):
        return type(value)(_changed(item, change) for item in value)
    return value
