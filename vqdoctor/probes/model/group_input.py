"""The input of each group of a product quantizer, beside the parts of their module's input."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vqdoctor.capture.call import Call
from vqdoctor.core.evidence import GroupInput
from vqdoctor.layouts.stacks import stacks
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import each_layer
from vqdoctor.probes.model.residual_level import whole_of


def measure(context: ModelContext) -> dict[str, GroupInput]:
    """Return how many parts of their module's input the groups of each family get."""
    measured = {}
    for stack in stacks(context.views):
        names = [view.name for view in stack]
        layers = [context.layers[name] for name in names]
        path = whole_of(context.model, [layer.path or "" for layer in layers])
        if path is None or not all(layer.maps for layer in layers):
            continue
        calls, _ = context.first_calls(training=False, paths={"whole": path})
        groups = [calls[name] for name in names if name in calls]
        if "whole" not in calls or len({call.module for call in groups}) < len(names):
            continue
        axis = layers[0].reader.axis(groups[0])
        parts = _parts(calls["whole"].z_e, groups, axis)
        read = sum(any(torch.equal(part, call.z_e) for call in groups) for part in parts)
        known = all(any(torch.equal(part, call.z_e) for part in parts) for call in groups)
        for number, (name, call) in enumerate(zip(names, groups, strict=True), start=1):
            if known:
                measured[name] = GroupInput(
                    source="batch",
                    sample_size=call.z_e.numel() // call.z_e.shape[axis],
                    group=number,
                    groups=len(names),
                    parts=len(parts),
                    read=read,
                )
    return measured


def _parts(whole: torch.Tensor, groups: Sequence[Call], axis: int) -> list[torch.Tensor]:
    """Return the different parts of a module's input that have the shape of a group's; [] if it has none."""
    shape = groups[0].z_e.shape
    if whole.ndim != len(shape) or any(call.z_e.shape != shape for call in groups):
        return []
    if whole.shape[axis] % shape[axis] or whole.select(axis, 0).shape != groups[0].z_e.select(axis, 0).shape:
        return []
    parts: list[torch.Tensor] = []
    for part in torch.split(whole, shape[axis], dim=axis):
        if not any(torch.equal(part, other) for other in parts):
            parts.append(part)
    return parts


PROBE = each_layer(
    GroupInput, measure, "the layer is not one of several groups, or its input is no part of their module's",
    mode="eval", by_gradient=False,
)  # fmt: skip
