"""The levels of a residual quantizer: does a gradient at a level's input reach the first level's?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from vqdoctor.core.evidence import Evidence, ResidualLevel, Unavailable
from vqdoctor.layouts.stacks import stacks
from vqdoctor.probes.model._calls import LayerCall, first_calls
from vqdoctor.probes.model._context import ModelContext, gradient
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.probe import Probe

_ROUNDING = 1e-3
"""Relative difference up to which a level's input is what the level before it left over."""


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield how a gradient runs from every residual level to the first."""
    families = [tuple(view.name for view in stack) for stack in stacks(context.views)]
    wholes = {
        names: _whole(context.model, [context.layers[name] for name in names])
        for names in families
        if all(name in context.layers for name in names)
    }
    paths = dict(context.layers)
    paths.update({f"whole of {names[0]}": path for names, path in wholes.items() if path})
    calls, _ = first_calls(context, paths, training=True) if wholes else ({}, None)
    measured = {}
    for names in wholes:
        levels = {name: calls[name] for name in names if name in calls}
        if len(levels) == len(names) and _is_residual(list(levels.values())):
            dim = next(view.dim for view in context.views if view.name == names[0])
            gain = _gain(calls.get(f"whole of {names[0]}"), dim)
            measured.update(_levels(levels, gain, dim))
    yield from by_layer(context, ResidualLevel, measured, "the layer is no level of a residual quantizer")


def _whole(model: nn.Module, paths: Sequence[str]) -> str | None:
    """Return the path of the nearest module around all levels that is no mere list of them."""
    split = [path.split(".") for path in paths]
    common: list[str] = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    while common and isinstance(model.get_submodule(".".join(common)), nn.ModuleList | nn.ModuleDict):
        common.pop()
    return ".".join(common) or None


def _is_residual(levels: Sequence[LayerCall]) -> bool:
    """Return whether every level's input is the input of the one before it minus its codes."""
    for upper, lower in itertools.pairwise(levels):
        if upper.z_q is None or upper.z_e.shape != lower.z_e.shape:
            return False
        rest = (upper.z_e - upper.z_q - lower.z_e).detach()
        size = upper.z_e.detach().norm() + upper.z_q.detach().norm()
        if not float(rest.norm()) <= _ROUNDING * float(size):
            return False
    return True


def _levels(levels: Mapping[str, LayerCall], gain: float | None, dim: int) -> dict[str, ResidualLevel]:
    first = next(iter(levels.values())).z_e
    return {
        name: ResidualLevel(
            layer=name,
            source="batch",
            sample_size=call.z_e.numel() // call.z_e.shape[call.axis(dim)],
            level=number,
            levels=len(levels),
            reach=1.0 if call.z_e is first else _ratio(call.z_e, first, call.axis(dim)),
            gain=gain,
        )
        for number, (name, call) in enumerate(levels.items(), start=1)
    }


def _gain(whole: LayerCall | None, dim: int) -> float | None:
    if whole is None or whole.z_q is None:
        return None
    return _ratio(whole.z_q, whole.z_e, whole.axis(dim))


def _ratio(end: torch.Tensor, start: torch.Tensor, axis: int) -> float:
    """Return the median over the vectors of |g| / |v|: a spike of a single vector is another matter."""
    cotangent = torch.randn_like(end)
    g: Any = gradient(end, start, cotangent)
    return 0.0 if g is None else float((g.norm(dim=axis) / cotangent.norm(dim=axis)).median())


PROBE = Probe(kinds=(ResidualLevel,), measure=measure)
