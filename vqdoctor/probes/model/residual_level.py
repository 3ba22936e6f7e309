"""The levels of a residual quantizer: does a gradient at a level's input reach the first level's?"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from vqdoctor.capture.call import Call, first_float
from vqdoctor.capture.reader import Reader
from vqdoctor.capture.vectors import channel_axis, rows
from vqdoctor.capture.watch import watch_each
from vqdoctor.core.evidence import ResidualLevel
from vqdoctor.layouts.stacks import stacks
from vqdoctor.models.untouched import seed_all
from vqdoctor.probes.model._context import ModelContext, gradient
from vqdoctor.probes.model._gaps import each_layer
from vqdoctor.probes.model.data_match import takes_nearest

_ROUNDING = 1e-3
"""Relative difference up to which a level's input equals the rest that the level before it left."""
_ASKED = 64
"""Vectors that are looked for in what follows a stack."""


def measure(context: ModelContext) -> dict[str, ResidualLevel]:
    """Return how a gradient runs from every residual level to the first."""
    families = [tuple(view.name for view in stack) for stack in stacks(context.views)]
    wholes = {
        names: whole_of(context.model, [context.layers[name].path or "" for name in names])
        for names in families
        if all(context.layers[name].maps for name in names)
    }
    paths = {f"whole of {names[0]}": path for names, path in wholes.items() if path}
    calls, _ = context.first_calls(training=True, paths=paths) if wholes else ({}, None)
    measured: dict[str, ResidualLevel] = {}
    for names in wholes:
        levels = {name: calls[name] for name in names if name in calls}
        if len(levels) < len(names):
            continue
        inputs = list(levels.values())
        subtracted, added = (_leaves(inputs, sign) for sign in (-1, 1))
        last_only = not subtracted and _leaves_of_the_first(inputs)
        one_input = (
            not subtracted
            and _has_one_input(inputs)
            and all(takes_nearest(context.layers[name].reader, call) for name, call in levels.items())
        )
        joined = _joined(context, names) if one_input or added or last_only else ""
        if subtracted or joined:
            reader = context.layers[names[0]].reader
            whole, gain = calls.get(f"whole of {names[0]}"), None
            if whole is not None and whole.z_q is not None and whole.z_q.shape == whole.z_e.shape:
                positions = None if whole.indices is None else whole.indices.shape
                axis = channel_axis(whole.z_e.shape, reader.view.dim, positions, whole.z_q)
                gain = _ratio(whole.z_q, whole.z_e, axis)
            found = _levels(levels, gain, reader)
            measured.update(
                {
                    name: level.replace(
                        subtracted=subtracted, added=added, last_only=last_only, joined=joined or "sum"
                    )
                    for name, level in found.items()
                }
            )
    return measured


def whole_of(model: nn.Module, paths: Sequence[str]) -> str | None:
    """Return the path of the nearest module around all levels, without plain lists of them."""
    steps = zip(*(path.split(".") for path in paths), strict=False)
    common = [parts[0] for parts in itertools.takewhile(lambda parts: len(set(parts)) == 1, steps)]
    lists = (nn.ModuleList, nn.ModuleDict, nn.ParameterList)
    while common and isinstance(model.get_submodule(".".join(common)), lists):
        common.pop()
    return ".".join(common) or None


def _leaves(levels: Sequence[Call], sign: int) -> bool:
    """Return whether every level's input is the input of the one before it plus `sign` times its codes."""
    return all(_gives(upper.z_e, upper, lower, sign) for upper, lower in itertools.pairwise(levels))


def _leaves_of_the_first(levels: Sequence[Call]) -> bool:
    """Return whether every level's input is the first one's minus the codes of the level before it alone."""
    return all(_gives(levels[0].z_e, upper, lower, -1) for upper, lower in itertools.pairwise(levels))


def _gives(whole: torch.Tensor, upper: Call, lower: Call, sign: int) -> bool:
    """Return whether a level's input is `whole` plus `sign` times the codes of the level before it."""
    if upper.z_q is None or not whole.shape == upper.z_q.shape == lower.z_e.shape:
        return False
    rest = (whole + sign * upper.z_q - lower.z_e).detach()
    size = whole.detach().norm() + upper.z_q.detach().norm()
    return float(rest.norm()) <= _ROUNDING * float(size)


def _has_one_input(levels: Sequence[Call]) -> bool:
    """Return whether every level is a module of its own and its input is that of the first."""
    first = levels[0]
    return len({call.module for call in levels}) == len(levels) and all(
        call.z_q is not None
        and call.z_e.shape == call.z_q.shape == first.z_e.shape
        and torch.equal(call.z_e, first.z_e)
        for call in levels
    )


def _joined(context: ModelContext, names: Sequence[str]) -> str:
    """Return whether a module of the model gets the "sum" or the "mean" of the codes that these levels chose.

    Codebooks that quantize one vector each for themselves get one input as well, and their codes are put side
    by side: that is "".
    """
    model = context.copy(training=True)
    found: list[str] = []
    levels = [context.layers[name].on(model) for name in names]
    inside = {module for level in levels for module in level.module.modules()}

    with contextlib.ExitStack() as stack, torch.no_grad():
        watched = stack.enter_context(watch_each(level.module for level in levels))

        def given(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls = [next(iter(watched[level.module].mapped), None) for level in levels]
            tensor = first_float((args, kwargs))
            codes = [
                rows(call.z_q, level.reader.axis(call)).flatten(0, 1).float()
                for level, call in zip(levels, calls, strict=True)
                if call is not None and call.z_q is not None
            ]
            if tensor is not None and len(codes) == len(levels) and not found:
                whole = torch.stack(codes)
                forms = {"sum": whole.sum(0), "mean": whole.mean(0)}
                if float((whole - whole[0]).norm()) <= _ROUNDING * float(whole.norm()):
                    del forms["mean"]  # it is each level's own code, wherever these go
                found.extend(form for form, vectors in forms.items() if _holds(tensor, vectors))

        for module in model.modules():
            if module not in inside:
                stack.callback(module.register_forward_pre_hook(given, with_kwargs=True).remove)
        seed_all(context.seed)
        context.task.losses(model, context.first_batches[0])
    return found[0] if found else ""


def _holds(tensor: torch.Tensor, vectors: torch.Tensor) -> bool:
    """Return whether vectors [N, D] are among those of a tensor, along an axis of length D or on its last."""
    asked = vectors[:: max(1, len(vectors) // _ASKED)][:_ASKED]
    near = _ROUNDING * float(asked.norm(dim=1).mean())
    dim = vectors.shape[1]
    axes = [axis for axis, size in enumerate(tensor.shape) if size == dim and tensor.ndim > 1]
    places = [tensor.float().movedim(axis, -1).reshape(-1, dim) for axis in axes]
    if not axes and tensor.ndim > 1 and tensor.shape[-1] % dim == 0:  # several vectors side by side
        places = [tensor.float().reshape(-1, dim)]
    exact = "donot_use_mm_for_euclid_dist"  # a matrix product rounds distances to 3e-4 of the vectors' length
    distances = (torch.cdist(asked, place, compute_mode=exact) for place in places if len(place))
    return any(float(distance.amin(1).max()) <= near for distance in distances)


def _levels(levels: Mapping[str, Call], gain: float | None, reader: Reader) -> dict[str, ResidualLevel]:
    first = next(iter(levels.values())).z_e
    return {
        name: ResidualLevel(
            source="batch",
            sample_size=call.z_e.numel() // call.z_e.shape[reader.axis(call)],
            level=number,
            levels=len(levels),
            reach=_reach(call.z_e, first, reader.axis(call)),
            gain=gain,
        )
        for number, (name, call) in enumerate(levels.items(), start=1)
    }


def _reach(z_e: torch.Tensor, first: torch.Tensor, axis: int) -> float | None:
    """Return the share of a gradient at a level's input that reaches the first's; None where detached."""
    if z_e is first:
        return 1.0
    return None if z_e.is_leaf else _ratio(z_e, first, axis)


def _ratio(end: torch.Tensor, start: torch.Tensor, axis: int) -> float:
    """Return the median over the vectors of |g| / |v|: a spike of a single vector is another matter."""
    cotangent = torch.randn_like(end)
    g = gradient(end, start, cotangent)
    return 0.0 if g is None else float((g.norm(dim=axis) / cotangent.norm(dim=axis)).median())


NO_LEVEL = "the layer is not a level of a residual quantizer"
PROBE = each_layer(ResidualLevel, measure, NO_LEVEL, mode="train")
