"""Watching a VQ layer at work: z_e going in, z_q and the indices coming out, and changing z_q."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from vqdoctor.live.locate import tensors_of


@dataclass
class Call:
    """One call of a VQ layer, with the graph that autograd recorded.

    Attributes:
        z_e: the layer's float input, as the layer saw it.
        z_q: the float output of that shape; None where the layer gives none.
        indices: the integer output; None where the layer gives none.
    """

    z_e: torch.Tensor
    z_q: torch.Tensor | None = None
    indices: torch.Tensor | None = None


@dataclass
class Watch:
    """The calls that a layer received while it was watched, the latest last."""

    calls: list[Call] = field(default_factory=list)

    @property
    def last(self) -> Call:
        """The latest call."""
        return self.calls[-1]


@contextmanager
def watch(
    layer: nn.Module,
    *,
    keep_graph: bool = False,
    change: Callable[[Call], torch.Tensor] | None = None,
) -> Iterator[Watch]:
    """Record the calls of `layer`.

    Args:
        layer: the module to watch.
        keep_graph: keep z_e and z_q in the autograd graph, and make z_e require a gradient where
            the encoder does not; else both are detached.
        change: given a call, returns what the model gets in place of z_q.
    """
    seen = Watch()
    keep = (lambda tensor: tensor) if keep_graph else torch.Tensor.detach

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        z_e = next((t for t in tensors_of((args, kwargs)) if t.is_floating_point()), None)
        if z_e is None:
            return None
        if keep_graph and not z_e.requires_grad:
            fresh = z_e.detach().requires_grad_()
            args, kwargs = _swap((args, kwargs), z_e, fresh)
            z_e = fresh
        seen.calls.append(Call(z_e=keep(z_e)))
        return args, kwargs

    def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if not seen.calls or seen.last.z_q is not None:
            return None
        call = seen.last
        for tensor in tensors_of(output):
            if tensor.is_floating_point() and tensor.shape == call.z_e.shape and call.z_q is None:
                call.z_q = tensor
            elif not tensor.is_floating_point() and tensor.dtype != torch.bool and call.indices is None:
                call.indices = tensor.detach() if tensor.ndim else None
        if call.z_q is None:
            return None
        result = None if change is None else _swap(output, call.z_q, change(call))
        call.z_q = keep(call.z_q)
        return result

    handles = [
        layer.register_forward_pre_hook(before, with_kwargs=True),
        layer.register_forward_hook(after, with_kwargs=True),
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _swap(value: Any, old: torch.Tensor, new: torch.Tensor) -> Any:
    """Return `value` with the tensor `old` replaced by `new`, in the same containers."""
    if value is old:
        return new
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_swap(item, old, new) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(_swap(item, old, new) for item in value)
    if isinstance(value, dict):
        swapped = {key: _swap(item, old, new) for key, item in value.items()}
        return swapped if type(value) is dict else type(value)(swapped)
    return value
