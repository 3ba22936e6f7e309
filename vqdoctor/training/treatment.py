"""The effect of a training plan on the VQ layers: estimators, geometry and precision."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from vqdoctor.capture.call import Call, swap
from vqdoctor.capture.layer import CapturedLayer, watching
from vqdoctor.capture.pulls import leading_to
from vqdoctor.capture.reader import Reader
from vqdoctor.capture.watch import replaced
from vqdoctor.core.training_plan import Estimator, Geometry, TrainingPlan
from vqdoctor.models.task import Batch, Task
from vqdoctor.models.tensors import tensors_of
from vqdoctor.models.untouched import seed_all
from vqdoctor.training.start import stored_ids
from vqdoctor.vq.estimators import rotation, straight_through

ESTIMATORS = ("straight-through", "rotation-trick")
"""Remedies that put an estimator behind a VQ layer."""
_TINY = 1e-6


@dataclass(kw_only=True, eq=False)
class Grafts:
    """The change that puts a plan's estimators behind the layers, in one pass.

    Attributes:
        estimators: layer to its estimator; a layer that is not named keeps its own.
        put: the layer's own z_q and what the model got in its place, in the order of the calls.
    """

    estimators: Mapping[str, Estimator]
    put: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def __call__(self, layer: CapturedLayer, call: Call) -> torch.Tensor:
        """Return the tensor that the model gets in place of a call's z_q."""
        kind: Estimator = self.estimators.get(layer.name, "own")
        z_e, z_q = call.z_e, call.z_q
        assert z_q is not None
        if kind == "own" or z_e.shape != z_q.shape:
            return z_q
        straight = kind == "straight-through"
        new = straight_through(z_e, z_q) if straight else rotation(z_e, z_q, layer.reader.axis(call))
        self.put.append((z_q, new))
        return new

    def behind(self, vq: torch.Tensor | None) -> torch.Tensor | None:
        """Return a VQ loss with the gradient that it has in the user's source: the estimators lie behind it.

        A model that looks its codes up itself, or computes the VQ loss outside of the layer, computes it on
        what it was given in place of z_q. There the codebook term mse(z_q, sg z_e) would pass its gradient to
        z_e, where it is -1/β of that of the commitment term, so that the VQ loss would drive z_e away from
        the codes. So the gradient at the estimator's output goes to the layer's own z_q; the value stays.
        """
        for own, new in reversed(self.put):
            if vq is None or not (vq.requires_grad and new.requires_grad):
                continue
            found = torch.autograd.grad(vq, new, retain_graph=True, allow_unused=True)
            pull: torch.Tensor | None = found[0]
            if pull is not None:
                vq = vq + (pull * ((own - own.detach()) - (new - new.detach()))).sum()
        return vq


def grafts(plan: TrainingPlan) -> Grafts | None:
    """Return the change that puts the plan's estimators behind the layers; None if all keep theirs."""
    return Grafts(estimators=plan.estimators) if plan.estimators else None


def against_outer_estimators(
    model: torch.nn.Module, task: Task, batch: Batch, layers: tuple[CapturedLayer, ...], seed: int
) -> str:
    """Return why no estimator can be put behind the layers; "" where it can.

    A layer may map its codes by trained weights, as DAC's does back to the width of z_e. The estimator
    belongs in front of these: behind them it cuts them off from the task, and takes their output for one
    near z_e.

    Args:
        model: a copy of the model in train mode, which is changed.
        task: its task.
        batch: a train batch.
        layers: its VQ layers.
        seed: of all that is drawn.
    """
    seed_all(seed)
    written, mapped = stored_ids(layers), []
    named = {name: p for name, p in model.named_parameters() if p.requires_grad and id(p) not in written}
    with torch.enable_grad(), watching(layers, keep_graph=True) as watched:
        task.losses(model, batch)
        for layer in layers:
            own = not (layer.view.derived or layer.view.lookup == "logits")
            for call in layer.calls(watched)[:1] if own else ():
                assert call.z_q is not None
                names = leading_to(call.z_q, named) - leading_to(call.z_e, named)
                mapped += [f"{layer.name} maps vectors by {name}" for name in sorted(names)]
    return f"{mapped[0]}: the estimator belongs at the lookup itself, in your source" if mapped else ""


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
