"""Is the VQ loss lower where all vectors choose one code? Asked where few codes are left in use."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from vqdoctor.capture.call import Call, first_float, swap
from vqdoctor.capture.layer import CapturedLayer
from vqdoctor.capture.reader import EXACT, Codes
from vqdoctor.capture.vectors import rows
from vqdoctor.core.evidence import CollapseReward
from vqdoctor.probes.model._context import ModelContext, gradient
from vqdoctor.probes.model._gaps import each_layer
from vqdoctor.probes.probe import Missing

SHARE = 0.5
"""Share of the codes in use, as perplexity, under which a layer is asked: elsewhere nothing is kept from use.
A home-made LFQ whose entropy had the wrong sign kept 0.43 of the codes that its channels tell apart."""
CODES = 4
"""Codes that the vectors are spread over."""
LEAST_SIZE = 1.0
"""Least size of random vectors: the levels of FSQ, LFQ and their like lie about one apart."""
DRAWN = 64
"""Vectors that are drawn, to find some which choose different codes."""
KEPT = 0.9
"""Least share of vectors that must choose the same code in company and alone: a batch norm changes that."""


def measure(context: ModelContext) -> dict[str, CollapseReward | Missing]:
    """Return the VQ loss at several codes and at one, for every layer with few codes in use."""
    asked = {name: layer for name, layer in context.mapped.items() if _few(context.all_codes(name), layer)}
    if not asked:
        raise Missing("more than half of the codes are in use")
    first, losses = context.first_calls(training=True)
    if losses is None or losses.vq is None or not losses.vq.requires_grad:
        raise Missing("the task gives no VQ loss with a gradient")
    return {name: _reward(context, layer, first.get(name)) for name, layer in asked.items()}


def _few(codes: Codes, layer: CapturedLayer) -> bool:
    counts = np.bincount(codes, minlength=1)
    shares = counts[counts > 0] / max(len(codes), 1)
    return len(codes) > 0 and float(np.exp(-(shares * np.log(shares)).sum())) <= SHARE * layer.num_codes


def _reward(context: ModelContext, layer: CapturedLayer, call: Call | None) -> CollapseReward | Missing:
    if call is None or call.z_q is None or call.z_q.shape != call.z_e.shape:
        return Missing("z_e and z_q of the layer are not seen")
    axis = layer.reader.axis(call)
    drawn = _drawn(context, layer, call, axis)
    places = torch.arange(call.z_e.numel() // drawn.shape[1], device=drawn.device)
    run = partial(_run, context, layer, axis)
    if len(places) < 2 * CODES or (seen := run(drawn[places % len(drawn)])) is None:
        return Missing("the layer does not take other vectors")
    vectors = drawn[torch.tensor(_apart(seen, len(drawn)), device=drawn.device)]
    if len(vectors) < 2:
        return Missing("all vectors choose one code, whatever they are")
    which = places % len(vectors)
    spread = run(vectors[which])
    if spread is not None and spread.handed_on:
        return Missing("the VQ loss of another layer depends on this one's codes, and couples vectors too")
    alone = [run(vector.expand(len(places), -1)) for vector in vectors]
    ones = [one for one in alone if one is not None]
    if spread is None or len(ones) < len(vectors):
        return Missing("the layer does not take other vectors")
    same = torch.stack([_same(one, spread) for one in ones])[which.cpu(), torch.arange(len(which))]
    if float(same.double().mean()) < KEPT:
        return Missing("a vector of the layer chooses another code in other company")
    return CollapseReward(
        source="batch",
        sample_size=len(places),
        codes=len(vectors),
        spread=spread.loss,
        one=sum(run.loss * float((which == i).double().mean()) for i, run in enumerate(ones)),
        reach=_reach(spread.gradient, [one.gradient for one in ones], which),
        vq_weight=context.vq_weight,
    )


def _drawn(context: ModelContext, layer: CapturedLayer, call: Call, axis: int) -> torch.Tensor:
    """Return vectors [n, D] that may choose different codes: rows of the codebook, or else random ones."""
    dim, generator = call.z_e.shape[axis], torch.Generator().manual_seed(context.seed)
    stored = layer.codebook
    if dim == layer.view.dim and (stored.codes is not None or stored.sums is not None):
        codes = layer.codes()
        chosen = torch.randperm(len(codes), generator=generator)[:DRAWN].to(codes.device)
        return codes[chosen].to(call.z_e)
    size = call.z_e.detach().square().mean().sqrt().clamp_min(LEAST_SIZE).to(call.z_e)
    return torch.randn(DRAWN, dim, generator=generator).to(call.z_e) * size


class _Run(NamedTuple):
    """The results of one forward pass with other vectors: codes [N] where they are told, outputs [N, D].

    `handed_on` says whether the VQ loss depends on the output of one layer of several: then another layer
    gets what the model makes of it, as at the next scale of an image.
    """

    codes: torch.Tensor | None
    outputs: torch.Tensor
    loss: float
    gradient: torch.Tensor
    handed_on: bool


def _same(one: _Run, other: _Run) -> torch.Tensor:
    """Return where two runs chose the same code, bool [N]: by the codes, or else by the outputs."""
    if one.codes is not None and other.codes is not None:
        return torch.eq(one.codes, other.codes)
    near = EXACT * one.outputs.norm(dim=1).mean()
    return torch.le((one.outputs - other.outputs).norm(dim=1), near)


def _apart(run: _Run, first: int) -> list[int]:
    """Return the places of some of the first vectors that chose different codes."""
    kept: list[int] = []
    near = EXACT * float(run.outputs.norm(dim=1).mean())
    for place in range(min(first, len(run.outputs))):
        if run.codes is not None:
            fresh = all(run.codes[place] != run.codes[other] for other in kept)
        else:
            fresh = all(float((run.outputs[place] - run.outputs[other]).norm()) > near for other in kept)
        kept += [place] if fresh and len(kept) < CODES else []
    return kept


def _run(context: ModelContext, layer: CapturedLayer, axis: int, vectors: torch.Tensor) -> _Run | None:
    """Run the task on its first training batch with these vectors [N, D] in place of a layer's z_e.

    Returns:
        its results; None where the layer does not take the vectors, or the VQ loss does not depend on them.
    """
    given = vectors.detach().clone().requires_grad_()
    taken: list[bool] = []

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        z_e = first_float((args, kwargs))
        if z_e is None or z_e.numel() != given.numel() or taken:
            return None
        taken.append(True)
        last = z_e.movedim(axis, -1)
        return swap((args, kwargs), z_e, given.reshape(last.shape).movedim(-1, axis))

    def watch(model: nn.Module) -> None:
        layer.on(model).module.register_forward_pre_hook(enter, with_kwargs=True)

    calls, losses = context.first_calls(training=True, change=watch)
    call = calls.get(layer.name)
    if not taken or call is None or call.z_q is None or losses is None or losses.vq is None:
        return None
    codes, found = layer.reader.given(call), gradient(losses.vq.sum(), given)
    outputs = rows(call.z_q.detach(), axis).flatten(0, 1).float().cpu()
    if found is None or len(outputs) != len(vectors):
        return None
    told = codes is not None and codes.numel() == len(vectors)
    chosen = codes.flatten().cpu() if codes is not None and told else None
    handed_on = len(context.mapped) > 1 and gradient(losses.vq.sum(), call.z_q) is not None
    return _Run(chosen, outputs, float(losses.vq.detach().sum()), found, handed_on)


def _reach(spread: torch.Tensor, alone: Sequence[torch.Tensor], which: torch.Tensor) -> float:
    """Return how much the gradients at equal vectors differ, over the sum of their sizes."""
    beside = torch.stack(list(alone))[which, torch.arange(len(which), device=which.device)]
    size = float(spread.norm() + beside.norm())
    return float((spread - beside).norm()) / size if size else 0.0


PROBE = each_layer(
    CollapseReward, measure, "z_e and z_q of the layer are not seen",
    mode="both", needs_codebook=False, needs_vq_loss=True,
)  # fmt: skip
