"""A layer that draws its codes softly: does a higher temperature let the gradient through?"""

from __future__ import annotations

import re

import torch
from torch import nn

from vqdoctor.capture.layer import watching
from vqdoctor.capture.vectors import rows
from vqdoctor.core.frozen import frozen
from vqdoctor.models.untouched import seed_all
from vqdoctor.probes.model._context import ModelContext, gradient

_NAMED = re.compile(r"(^|_)(tau|temp|temperature)$")
_LOW = 0.1
"""Temperatures from which on a softmax of trained logits may be next to a choice."""


@frozen
class Warmed:
    """A layer's temperature: its name and value, and the share of vectors without a gradient if it were 1."""

    name: str
    value: float
    zero_share: float


def warmed(context: ModelContext, name: str) -> Warmed | None:
    """Return a layer's low temperature, and the effect of a temperature of 1; None where it has none."""
    model = context.copy(training=True)
    layer = context.layers[name].on(model)
    found = next(iter(_temperatures(layer.module)), None) if layer.maps else None
    if found is None or not context.first_batches:
        return None
    owner, attribute, value = found
    setattr(owner, attribute, _one(getattr(owner, attribute)))
    seed_all(context.seed)
    with watching(context.on(model), keep_graph=True) as watched:
        context.task.losses(model, context.first_batches[0])
    call = next(iter(layer.calls(watched)), None)
    if call is None or call.z_q is None:
        return None
    arrived = gradient(call.z_q, call.z_e, torch.randn_like(call.z_q))
    if arrived is None:
        return None
    vectors = rows(arrived, layer.reader.axis(call)).flatten(0, 1)
    return Warmed(name=attribute, value=value, zero_share=float((~vectors.any(dim=1)).float().mean()))


def _temperatures(module: nn.Module) -> list[tuple[nn.Module, str, float]]:
    """Return the low temperatures that a module and its children keep, as numbers or tensors of one."""
    return [
        (owner, name, float(value))
        for owner in module.modules()
        for name, value in (*vars(owner).items(), *owner._buffers.items(), *owner._parameters.items())
        if _NAMED.search(name)
        and (isinstance(value, float) or (isinstance(value, torch.Tensor) and value.numel() == 1))
        and 0 < float(value) < _LOW
    ]


def _one(value: float | torch.Tensor) -> float | torch.Tensor:
    if not isinstance(value, torch.Tensor):
        return 1.0
    one = torch.ones_like(value)
    return nn.Parameter(one) if isinstance(value, nn.Parameter) else one
