"""How the input is cut into vectors: does a code move with its position alone?

A layer that reads one position at a time gives shuffled codes for shuffled positions, exactly. One that
calls `view(-1, D)` on a channel-first tensor reads runs of memory instead: neighbouring positions of one
channel. The positions hold random codes, so that a collapsed codebook can tell too.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from torch import nn

from vqdoctor.capture.call import FAILURES, Call
from vqdoctor.capture.layer import CapturedLayer
from vqdoctor.capture.vectors import rows, unrows
from vqdoctor.core.evidence import Flattening
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.probes.model._context import ModelContext, gradient
from vqdoctor.probes.model._gaps import each_layer

_CHANNEL_FIRST = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
)
_CHANNEL_LAST = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.RNNBase)
_ASKED = 5
"""Vectors whose elements are traced back to the encoder's output."""
_SAME = 1e-3
"""Relative difference up to which two z_q are the same."""


def measure(context: ModelContext) -> dict[str, Flattening]:
    """Return how every layer's input is cut into vectors."""
    calls, _ = context.first_calls(training=False)
    measured = {}
    for view in context.views:
        if view.name in calls:
            with contextlib.suppress(*FAILURES):
                axis = context.layers[view.name].reader.axis(calls[view.name])
                found = _flattening(context, view, calls[view.name], axis)
                if _is_square(calls[view.name], axis) and found.input_runs is None:
                    last = _flattening(context, view, calls[view.name], calls[view.name].z_e.ndim - 1)
                    found = max(found, last, key=lambda read: read.equal or 0.0)
                measured[view.name] = found
    return measured


def _is_square(call: Call, axis: int) -> bool:
    """Whether z_e [B, D, D] may hold its vectors on the last axis as well, where no convolution tells."""
    return call.z_e.ndim == 3 and axis == 1 and call.z_e.shape[1] == call.z_e.shape[2]


def _flattening(context: ModelContext, view: QuantizerView, call: Call, axis: int) -> Flattening:
    z_e = call.z_e
    vectors = rows(z_e, axis)
    samples, positions, dim = vectors.shape
    equal = as_stored = by_chance = output_as_stored = None
    if positions > 1:
        probe = _random_codes(context, view, vectors)
        generator = torch.Generator().manual_seed(context.seed)
        order, other = (
            torch.rand(samples, positions, generator=generator).argsort(1).to(z_e.device) for _ in range(2)
        )
        z = unrows(probe, z_e.shape, axis)

        def ask(given: torch.Tensor) -> Call:
            return call.again(context.seed, lambda t: given.contiguous() if t is call.given else t)

        plain, shuffled = ask(z), ask(unrows(_pick(probe, order), z.shape, axis))
        before, after = (_read(answer, z, axis, stored=False) for answer in (plain, shuffled))
        equal = _agreement(after, [_pick(part, order) for part in before])
        by_chance = _agreement(after, [_pick(part, other) for part in before])
        if axis != z_e.ndim - 1:
            runs = z.reshape(samples, positions, dim)
            stored = _read(ask(z), z, axis, stored=True)
            moved = _read(ask(_pick(runs, order).reshape(z.shape)), z, axis, stored=True)
            as_stored = _agreement(moved, [_pick(part, order) for part in stored])
            if plain.z_q is not None and plain.z_q.shape == z.shape and probe is not vectors:
                output_as_stored = _agreement([plain.z_q.reshape(probe.shape)], [probe])
    return Flattening(
        source="batch",
        sample_size=samples * positions,
        positions=positions,
        equal=equal,
        equal_as_stored=as_stored,
        by_chance=by_chance,
        input_runs=_input_runs(context, context.layers[view.name], axis),
        output_as_stored=output_as_stored,
    )


def _random_codes(context: ModelContext, view: QuantizerView, vectors: torch.Tensor) -> torch.Tensor:
    """Return vectors of that shape that are codes chosen at random; the vectors where no code fits."""
    if "codebook" not in view.keys or vectors.shape[-1] != view.dim or not np.isfinite(view.codebook).all():
        return vectors
    generator = torch.Generator().manual_seed(context.seed)
    picked = torch.randint(view.num_codes, vectors.shape[:2], generator=generator)
    return torch.from_numpy(np.array(view.codebook))[picked].to(vectors.device, vectors.dtype)


def _read(call: Call, z: torch.Tensor, axis: int, *, stored: bool) -> list[torch.Tensor]:
    """Return the outputs that tell codes apart: z_q, and the indices if each vector has one."""
    vectors = rows(z, axis)
    parts, z_q, indices = [], call.z_q, call.indices
    if z_q is not None and z_q.shape == z.shape:
        parts.append(z_q.reshape(vectors.shape) if stored else rows(z_q, axis))
    if indices is not None and indices.numel() == vectors.shape[0] * vectors.shape[1]:
        parts.append(indices.reshape(*vectors.shape[:2], 1))
    return parts


def _pick(vectors: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    return vectors.gather(1, order[..., None].expand_as(vectors))


def _agreement(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """Return the share of the vectors that are the same in both, by all that tells them apart."""
    same = torch.ones(one[0].shape[:2], dtype=torch.bool, device=one[0].device)
    for a, b in zip(one, other, strict=True):
        apart = (a - b).abs().amax(-1).double()
        same &= apart <= (_SAME * a.float().square().mean().sqrt() if a.is_floating_point() else 0)
    return float(same.float().mean())


def _input_runs(context: ModelContext, layer: CapturedLayer, axis: int) -> bool | None:
    """Trace single vectors of z_e back to the last channel-first tensor: are they runs of its memory?"""
    model = context.copy(training=False)
    stood: list[torch.Tensor] = []
    z_e: list[torch.Tensor] = []
    tokens: list[torch.Size] = []

    def passed(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        output = output[0] if isinstance(module, nn.RNNBase) else output
        if z_e or not isinstance(output, torch.Tensor) or output.ndim < 3:
            return None
        if isinstance(module, _CHANNEL_LAST):
            tokens[:] = [output.shape]
            return None
        if tokens and args and args[0].shape == tokens[0] and args[0].is_contiguous():
            return None  # a convolution over tokens that were not permuted: its channels are the positions
        # a frozen encoder has no graph: start one here
        alive = output if output.requires_grad else output.detach().requires_grad_()
        stood[:] = [alive]
        return alive

    def arrived(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        floats = (
            t for t in (*args, *kwargs.values()) if isinstance(t, torch.Tensor) and t.is_floating_point()
        )
        if not z_e:
            z_e.extend([*floats][:1])

    with contextlib.ExitStack() as stack:
        inside = layer.on(model).module
        for module in model.modules():
            if isinstance(module, _CHANNEL_FIRST + _CHANNEL_LAST) and module not in set(inside.modules()):
                stack.callback(module.register_forward_hook(passed).remove)
        stack.callback(inside.register_forward_pre_hook(arrived, with_kwargs=True).remove)
        context.task.losses(model, context.first_batches[0])
    if not stood or not z_e or not z_e[0].requires_grad:
        return None
    source = stood[0]
    vectors = z_e[0].movedim(axis, -1).flatten(0, -2)
    channels = source.shape[1]
    if len(vectors) * channels > source.numel() or channels < 2 or source[0, 0].numel() < 2:
        return None
    whole = len(vectors) * channels == source.numel()
    return all(
        _is_run(vectors, source, number, channels, whole=whole)
        for number in torch.linspace(0, len(vectors) - 1, _ASKED).long().tolist()
    )


def _is_run(vectors: torch.Tensor, source: torch.Tensor, number: int, length: int, *, whole: bool) -> bool:
    """Return whether a vector is a run of the source: that of its number where all vectors are there.

    Where a mask has picked some of the vectors, it must be a full run, of whatever number.
    """
    grad = gradient(vectors[number].sum(), source)
    if grad is None:
        return False
    touched = grad.flatten().nonzero().flatten()
    runs = touched // length
    if not whole:
        return len(touched) == length and bool((runs == runs[0]).all())
    return len(touched) > 1 and bool((runs == number).all())


ALONE = "the layer cannot be asked by itself"
PROBE = each_layer(Flattening, measure, ALONE, mode="eval", needs_codebook=False)
