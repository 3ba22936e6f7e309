"""Does the VQ loss depend on anything that is trained?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from vqdoctor.capture.step import Step
from vqdoctor.core.evidence import Evidence, LossPath, Unavailable
from vqdoctor.models.tensors import tensors_of
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.probe import Probe

SAME = 1e-3
"""Outputs over |z_e - z_q|^2 that differ by less than this share are one factor: float32 rounds to 1e-6."""
APART = 0.01
"""Least relative range of |z_e - z_q|^2 over the batches: where it stands still, any constant would fit."""


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield, for every layer, whether its VQ loss requires a gradient."""
    seen: dict[str, list[Step]] = {}
    for steps in context.steps():
        for name, step in steps.items():
            seen.setdefault(name, []).append(step)
    measured = {name: _path(context, name, steps) for name, steps in seen.items()}
    yield from by_layer(context, LossPath, measured)


def _path(context: ModelContext, name: str, steps: Sequence[Step]) -> LossPath:
    first = steps[0]
    reported = first.losses.vq
    loss = _own(steps) if reported is None else reported
    # a z_e that is a leaf was made to require a gradient by the watch: no loss outside the layer sees that
    trains = first.losses.task.requires_grad and not first.z_e.is_leaf
    alive = None if loss is None else True if loss.requires_grad else False if trains else None
    value = None if loss is None else float(loss.detach().sum())
    return LossPath(
        layer=name,
        source="batch",
        sample_size=first.vectors,
        value=value,
        reported=reported is not None,
        alive=alive,
        vq_weight=context.vq_weight,
    )


def _own(steps: Sequence[Step]) -> torch.Tensor | None:
    """Return the layer's first output that is its quantization error up to a factor; None if none is."""
    errors = [_error(step) for step in steps]
    known = [e for e in errors if e]
    if len(known) < len(errors) or len(known) < 2 or max(known) / min(known) < 1 + APART:
        return None
    series = [_scalars(step) for step in steps]
    for place, loss in enumerate(series[0]):
        if any(len(one) != len(series[0]) for one in series):
            return None
        factors = [float(one[place].detach().sum()) / e for one, e in zip(series, known, strict=True)]
        if factors[0] > 0 and all(abs(f / factors[0] - 1) < SAME for f in factors):
            return loss
    return None


def _error(step: Step) -> float | None:
    """Return the mean of (z_e - z_q)^2; None where their shapes differ."""
    if step.z_e.shape != step.z_q.shape:
        return None
    return float((step.z_e.detach() - step.z_q.detach()).double().square().mean())


def _scalars(step: Step) -> list[torch.Tensor]:
    return [t for t in tensors_of(step.call.output) if t.is_floating_point() and t.ndim <= 1]


PROBE = Probe(kinds=(LossPath,), measure=measure, mode="train", needs_codebook=False)
