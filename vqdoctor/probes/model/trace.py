"""A short look at the dynamics: a few optimizer steps on a copy of the model, where they are asked for."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from vqdoctor.capture.step import Step
from vqdoctor.core.evidence import Evidence, Trace, Unavailable
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.probe import Probe


@dataclass(kw_only=True)
class _Rows:
    """One layer over the steps: columns by the names of the evidence, and the codes seen."""

    columns: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    codes: set[int] = field(default_factory=set)


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield the trace of every layer, if steps were asked for."""
    if context.probe_steps < 1:
        yield from by_layer(context, Trace, {}, "no training steps were asked for", "--decide")
        return
    optimizer: torch.optim.Optimizer | None = None
    seen: dict[str, _Rows] = defaultdict(_Rows)
    stopped = ""
    for number, steps in enumerate(context.steps(context.probe_steps), start=1):
        context.progress(f"training step {number} of {context.probe_steps}, on a copy")
        if not steps:
            break
        model = next(iter(steps.values())).model
        optimizer = optimizer or context.optimizer(model)
        losses = next(iter(steps.values())).losses
        weight = 1.0 if context.vq_weight is None else context.vq_weight
        total = losses.task if losses.vq is None else losses.task + weight * losses.vq
        if not total.requires_grad:
            break
        if not torch.isfinite(total):
            stopped = f"the loss was {float(total.detach()):g} at step {number}"
            break
        pulls = torch.autograd.grad(
            total, [step.z_e for step in steps.values()], retain_graph=True, allow_unused=True
        )
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        noted = {
            name: _before_step(step, pull) for (name, step), pull in zip(steps.items(), pulls, strict=True)
        }
        optimizer.step()
        for name, step in steps.items():
            if (codes := _codes(step)) is not None:
                noted[name]["codebook_rms"] = _rms(codes)
        if not all(math.isfinite(value) for row in noted.values() for value in row.values()):
            stopped = f"a norm was not finite at step {number}"
            break
        for name, row in noted.items():
            for column, value in row.items():
                seen[name].columns[column].append(value)
            if (chosen := _chosen(steps[name])) is not None:
                seen[name].codes.update(chosen.tolist())
    measured = {}
    if optimizer is not None:
        measured = {name: _trace(context, rows, optimizer, stopped) for name, rows in seen.items()}
    yield from by_layer(context, Trace, measured, stopped or "the task's loss has no gradient")


def _before_step(step: Step, pull: torch.Tensor | None) -> dict[str, float]:
    """Return a row of the trace after the backward pass: sizes, gradients, losses and the batch's codes."""
    row: dict[str, float] = {
        "vectors": step.vectors,
        "z_e_rms": _rms(step.z_e.detach()),
        "z_e_gradient": 0.0 if pull is None else float(pull.norm()),
        "encoder_gradient": _encoder_gradient(step.model, step.layer.path or ""),
        "task_loss": float(step.losses.task.detach()),
    }
    if step.losses.vq is not None:
        row["vq_loss"] = float(step.losses.vq.detach())
    chosen = _chosen(step)
    if chosen is not None:
        shares = chosen.bincount().double() / chosen.numel()
        row["perplexity"] = float(torch.exp(-torch.special.xlogy(shares, shares).sum()))
        row["used"] = int((shares > 0).sum())
    return row


def _chosen(step: Step) -> torch.Tensor | None:
    """Return the codes of the batch, int64 [N]; None where some are missing."""
    if step.indices is None or step.indices.numel() != step.vectors or bool((step.indices < 0).any()):
        return None
    return step.indices.detach().flatten().long()


def _codes(step: Step) -> torch.Tensor | None:
    """Return the codes that the batch chose, as they are now; all codes, where the choice is unknown."""
    stored, view, chosen = step.layer.stored(), step.layer.view, _chosen(step)
    if stored is None:
        return None
    codebook = stored.detach()
    if chosen is None or tuple(codebook.squeeze(0).shape) != (view.num_codes, view.dim):
        return codebook
    return codebook.reshape(-1, view.dim)[torch.bincount(chosen).nonzero().squeeze(1)]


def _encoder_gradient(model: torch.nn.Module, path: str) -> float:
    """Return the norm of the gradient at the parameters before the layer in the model's order."""
    names = list(model.state_dict())
    inside = [i for i, name in enumerate(names) if name.startswith(f"{path}.")]
    before = set(names[: inside[0]]) if inside else set()
    grads = [p.grad for name, p in model.named_parameters() if name in before and p.grad is not None]
    return float(torch.cat([g.flatten() for g in grads]).norm()) if grads else 0.0


def _rms(tensor: torch.Tensor) -> float:
    return float(tensor.float().square().mean().sqrt())


def _trace(context: ModelContext, seen: _Rows, optimizer: torch.optim.Optimizer, stopped: str) -> Trace:
    steps = len(seen.columns["task_loss"])
    # a layer that gives its codes in some steps only, as under dropout of levels, has no series of them
    whole: dict[str, Any] = {k: tuple(row) for k, row in seen.columns.items() if len(row) == steps}
    return Trace(
        source="trace",
        sample_size=steps,
        optimizer=type(optimizer).__name__,
        own=hasattr(context.task, "optimizer"),
        learning_rate=float(optimizer.param_groups[0]["lr"]),
        vq_weight=1.0 if context.vq_weight is None else context.vq_weight,
        weight_known=context.vq_weight is not None,
        used_in_all=len(seen.codes) if "used" in whole else None,
        stopped=stopped,
        **whole,
    )


PROBE = Probe(kinds=(Trace,), measure=measure, mode="train", needs_vq_loss=True)
