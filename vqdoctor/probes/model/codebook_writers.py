"""Does the forward pass undo what the optimizer does to the codes?

Two copies go through the same batch. One has its codes moved a little, as an optimizer would; then both
go forward once more. What is left of the move says who has the last word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from vqdoctor.capture.call import FAILURES
from vqdoctor.capture.layer import CapturedLayer
from vqdoctor.core.evidence import CodebookWriters, Evidence, Unavailable
from vqdoctor.models.task import Losses
from vqdoctor.models.untouched import seed_all
from vqdoctor.probes.model._context import ModelContext, gradient
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.probe import Probe

MOVE = 1e-3
"""Size of the move, relative to the codebook's root mean square: it changes hardly any choice of code."""


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield, for every layer, who has the last word on its codes."""
    measured: dict[str, CodebookWriters] = {}
    reason = ""
    if context.mapped:
        try:
            measured = _writers(context)
        except FAILURES as error:
            reason = f"the gradient at the codebook fails ({type(error).__name__})"
    yield from by_layer(context, CodebookWriters, measured, reason or "the layer has no codebook")


def _writers(context: ModelContext) -> dict[str, CodebookWriters]:
    moved, still = context.copy(training=True), context.copy(training=True)
    layers = {name: layer.on(moved) for name, layer in context.mapped.items() if "codebook" in layer.tensors}
    before = {name: _codebook(layer) for name, layer in layers.items()}
    losses = _forward(context, moved)
    _forward(context, still)
    codes = {name: _codebook(layer) for name, layer in layers.items()}
    # where the forward pass has put a new object in place, either may be the one that it looked up
    pulls = {
        name: next(
            (p for t in (before[name], codes[name]) if (p := _pull(context, losses, t)) is not None), None
        )
        for name in layers
    }
    moves = {
        name: _move(codes[name], pull, context.seed)
        for name, pull in pulls.items()
        if pull is not None and pull.any()
    }
    with torch.no_grad():
        for name, move in moves.items():
            codes[name] += move
    if moves:
        for model in (moved, still):
            _forward(context, model)
    evidence = {}
    # building an optimizer costs a second: only where something hangs on it
    asked = any(pulls[name] is not None or codes[name] is not before[name] for name in layers)
    listed = _listed(context, layers) if asked else None
    for name, layer in layers.items():
        pull, shares = pulls[name], None
        if name in moves:
            shares = _left(_codebook(layer) - _codebook(layer.on(still)), moves[name])
        evidence[name] = CodebookWriters(
            layer=name,
            source="batch",
            sample_size=0 if shares is None else len(shares),
            gradient=None if pull is None else float(pull.norm()),
            listed=None if listed is None else name in listed,
            kept=None if shares is None else float(shares.median()),
            replaced=codes[name] is not before[name],
        )
    return evidence


def _move(codes: torch.Tensor, pull: torch.Tensor, seed: int) -> torch.Tensor:
    """Return a small random move of the rows that have a gradient."""
    noise = torch.randn(codes.shape, generator=torch.Generator().manual_seed(seed))
    touched = (pull != 0).any(-1, keepdim=True)
    return noise.to(codes.device, codes.dtype) * touched * MOVE * codes.detach().square().mean().sqrt()


def _left(apart: torch.Tensor, move: torch.Tensor) -> torch.Tensor:
    """Return, for each row that was moved, the share of its move that is left."""
    apart, move = (t.detach().reshape(-1, t.shape[-1]) for t in (apart, move))
    size = move.square().sum(1)
    return ((apart * move).sum(1) / size)[size > 0]


def _forward(context: ModelContext, model: torch.nn.Module) -> Losses:
    seed_all(context.seed)
    return context.task.losses(model, context.first_batches[0])


def _pull(context: ModelContext, losses: Losses, codebook: torch.Tensor) -> torch.Tensor | None:
    """Return the gradient of all losses at the codebook; None where there is no path."""
    parts = (losses.task, losses.vq if context.vq_weight != 0 else None)
    known = [pull for part in parts if (pull := gradient(part, codebook)) is not None]
    return sum(known[1:], known[0]) if known else None


def _listed(context: ModelContext, layers: Mapping[str, CapturedLayer]) -> set[str] | None:
    """Return the layers whose codebook the task's own optimizer holds; None where the task builds none."""
    build = getattr(context.task, "optimizer", None)
    if not callable(build):
        return None
    model = context.copy(training=True)
    held = {id(p) for group in build(model).param_groups for p in group["params"]}
    return {name for name, layer in layers.items() if id(_codebook(layer.on(model))) in held}


def _codebook(layer: CapturedLayer) -> torch.Tensor:
    stored = layer.stored()
    assert stored is not None
    return stored


PROBE = Probe(kinds=(CodebookWriters,), measure=measure, mode="train")
