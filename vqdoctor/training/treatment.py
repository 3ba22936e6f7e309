"""The effect of a training plan on the VQ layers: estimators, geometry and precision."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional

from vqdoctor.capture.call import Call, swap
from vqdoctor.capture.layer import CapturedLayer, Change
from vqdoctor.capture.reader import Reader
from vqdoctor.capture.watch import replaced
from vqdoctor.core.training_plan import Estimator, Geometry, TrainingPlan
from vqdoctor.models.tensors import tensors_of
from vqdoctor.vq.estimators import rotation, straight_through

_TINY = 1e-6


def grafts(plan: TrainingPlan) -> Change | None:
    """Return the change that puts the plan's estimators behind the layers; None if all keep theirs."""
    if not plan.estimators:
        return None

    def graft(layer: CapturedLayer, call: Call) -> torch.Tensor:
        kind: Estimator = plan.estimators.get(layer.name, "own")
        z_e, z_q = call.z_e, call.z_q
        assert z_q is not None
        if kind == "own" or z_e.shape != z_q.shape:
            return z_q
        if kind == "straight-through":
            return straight_through(z_e, z_q)
        return rotation(z_e, z_q, layer.reader.axis(call))

    return graft


@contextlib.contextmanager
def reshaped(
    layers: tuple[CapturedLayer, ...], geometry: Geometry, *, full_precision: bool
) -> Iterator[None]:
    """Change the geometry and the precision of the layers' inputs while the context lasts."""
    with contextlib.ExitStack() as stack:
        for module in dict.fromkeys(layer.module for layer in layers):
            if geometry != "own":
                reader = next(layer.reader for layer in layers if layer.module is module)
                stack.callback(module.register_forward_pre_hook(_reshape(geometry, reader)).remove)
            if full_precision:
                stack.enter_context(_precise(module))
        yield


def _precise(module: torch.nn.Module) -> contextlib.AbstractContextManager[None]:
    """Run a module in float32, whatever the precision of what it gets and of what is around it."""
    forward = module.forward

    def precise(*args: Any, **kwargs: Any) -> Any:
        given = (args, kwargs)
        for tensor in tensors_of(given):
            if tensor.is_floating_point() and tensor.itemsize < torch.float32.itemsize:
                given = swap(given, tensor, tensor.float())
        device = next((tensor.device.type for tensor in tensors_of(given)), "cpu")
        with torch.autocast(device, enabled=False):
            return forward(*given[0], **given[1])

    return replaced(module, "forward", precise)


def _reshape(geometry: Geometry, reader: Reader) -> Callable[..., tuple[Any, ...] | None]:
    def reshape(_: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not args or not isinstance(args[0], torch.Tensor) or not args[0].is_floating_point():
            return None
        z_e = args[0]
        axis = reader.axis_of(z_e)
        if geometry == "sphere":
            return (functional.normalize(z_e, dim=axis), *args[1:])
        centred = z_e - z_e.mean(dim=axis, keepdim=True)
        return (centred / (centred.square().mean(dim=axis, keepdim=True) + _TINY).sqrt(), *args[1:])

    return reshape
