"""Does the forward pass undo what the optimizer does to the codes?

Two copies go through the same batch. One has its codes moved a little, as an optimizer would; then both
go forward once more. The share of the move that is left says who has the last word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from vqdoctor.capture.call import FAILURES
from vqdoctor.capture.layer import CapturedLayer
from vqdoctor.capture.pulls import leading_to
from vqdoctor.core.evidence import CodebookWriters
from vqdoctor.models.task import Losses
from vqdoctor.models.untouched import seed_all
from vqdoctor.probes.model._context import ModelContext, outside, share_held, total_gradient
from vqdoctor.probes.model._gaps import each_layer
from vqdoctor.probes.probe import Missing

MOVE = 1e-3
"""Size of the move, relative to the codebook's root mean square: it changes hardly any choice of code."""
STEPS = 4
"""Least size of the move in steps between neighbouring numbers of the codebook's type."""

_MOST = 0.5
"""Share of the weights before the layers that an optimizer of the whole model holds, at least."""


def measure(context: ModelContext) -> dict[str, CodebookWriters]:
    """Return, for every layer, who has the last word on its codes."""
    try:
        return _writers(context) if context.mapped else {}
    except FAILURES as error:
        raise Missing(f"the gradient at the codebook fails ({type(error).__name__})") from error


def _writers(context: ModelContext) -> dict[str, CodebookWriters]:
    moved, still = context.copy(training=True), context.copy(training=True)
    layers = {name: layer.on(moved) for name, layer in context.mapped.items() if "codebook" in layer.tensors}
    before = {name: _codebook(layer) for name, layer in layers.items()}
    losses = _forward(context, moved)
    _forward(context, still)
    codes = {name: _codebook(layer) for name, layer in layers.items()}
    weight = 0.0 if context.vq_weight == 0 else 1.0
    pulls: dict[str, torch.Tensor] = {}
    moves: dict[str, torch.Tensor] = {}
    for name in layers:
        # where the forward pass has put a new object in place, either may be the one that it looked up
        both = (total_gradient(losses, t, weight) for t in (before[name], codes[name]))
        pull = next((found for found in both if found is not None), None)
        if pull is not None:
            pulls[name] = pull
            if pull.any():
                moves[name] = _move(codes[name], pull, context.seed)
    with torch.no_grad():
        for name, move in moves.items():
            was = codes[name].clone()
            codes[name] += move
            moves[name] = codes[name] - was  # without what bfloat16 rounds away
    if moves:
        for model in (moved, still):
            _forward(context, model)
    evidence = {}
    # building an optimizer costs a second: only where something hangs on it
    asked = bool(pulls) or any(codes[name] is not before[name] for name in layers)
    listed = _listed(context, layers) if asked else None
    for name, layer in layers.items():
        shares = None
        if name in moves:
            apart = _codebook(layer) - _codebook(layer.on(still))
            left, move = (t.detach().reshape(-1, t.shape[-1]) for t in (apart, moves[name]))
            size = move.square().sum(1)
            of_row = ((left * move).sum(1) / size)[size > 0]  # of each row that was moved
            shares = of_row if len(of_row) else None
        evidence[name] = CodebookWriters(
            source="batch",
            sample_size=0 if shares is None else len(shares),
            gradient=float(pulls[name].norm()) if name in pulls else None,
            listed=None if listed is None else name in listed,
            kept=None if shares is None else float(shares.median()),
            replaced=codes[name] is not before[name],
        )
    return evidence


def _move(codes: torch.Tensor, pull: torch.Tensor, seed: int) -> torch.Tensor:
    """Return a small random move of the rows that have a gradient."""
    noise = torch.randn(codes.shape, generator=torch.Generator().manual_seed(seed))
    touched = (pull != 0).any(-1, keepdim=True)
    size = max(MOVE, STEPS * torch.finfo(codes.dtype).eps)
    return noise.to(codes.device, codes.dtype) * touched * size * codes.detach().square().mean().sqrt()


def _forward(context: ModelContext, model: torch.nn.Module) -> Losses:
    seed_all(context.seed)
    return context.task.losses(model, context.first_batches[0])


def _listed(context: ModelContext, layers: Mapping[str, CapturedLayer]) -> set[str] | None:
    """Return the layers whose codebook an optimizer of the task holds.

    None where the task builds none, or one that leaves the encoder alone too, as for a second stage.
    """
    own = context.own_optimizers()
    if own is None:
        return None
    model, optimizers = own
    held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    listed = {name for name, layer in layers.items() if id(_codebook(layer.on(model))) in held}
    return listed if listed == layers.keys() or _trains_the_encoder(context, model, optimizers) else None


def _trains_the_encoder(
    context: ModelContext, model: torch.nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> bool:
    """Whether the optimizers hold most of what may be trained before the layers, if there is anything."""
    learning = context.learning_copy()
    calls, _ = context.first_calls(training=True, model=learning)
    outer = outside(learning, (layer.path for layer in context.mapped.values() if layer.path))
    before = set[str]().union(*(leading_to(call.z_e, outer) for call in calls.values()))
    share = share_held(model, optimizers, {n for n in before if model.get_parameter(n).requires_grad})
    return share is None or share > _MOST


def _codebook(layer: CapturedLayer) -> torch.Tensor:
    stored = layer.stored()
    assert stored is not None
    return stored


PROBE = each_layer(CodebookWriters, measure, "the layer has no codebook", mode="train")
