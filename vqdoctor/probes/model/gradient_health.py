"""Gradients around the VQ layer that are NaN, infinite, or thousands of times too large."""

from __future__ import annotations

import torch

from vqdoctor.capture.step import Step
from vqdoctor.capture.vectors import rows
from vqdoctor.core.evidence import GradientHealth
from vqdoctor.core.frozen import frozen
from vqdoctor.probes.model._context import ModelContext, gradient
from vqdoctor.probes.model._gaps import each_layer
from vqdoctor.probes.model._looks import each_step

SPIKE = 1000.0
"""Gain of a vector, in units of the median gain, from which it counts as a spike."""


@frozen
class _Seen:
    """One batch: broken values of z_e and of its gradients; per vector the gain and the square of g."""

    broken_input: int
    broken: int
    gains: torch.Tensor
    squares: torch.Tensor


def _look(_: ModelContext, step: Step) -> _Seen:
    cotangent = torch.randn_like(step.z_q)
    through = gradient(step.z_q, step.z_e, cotangent)
    pulls = [step.pulls.of(loss, step.z_e) for loss in (step.losses.task, step.losses.vq)]
    g = torch.zeros_like(step.z_e) if through is None else through
    arrived, sent = (rows(t, step.axis).flatten(0, 1).double() for t in (g, cotangent))
    finite = arrived.isfinite().all(1)
    squares = arrived[finite].square().sum(1)
    return _Seen(
        broken_input=_broken(step.z_e),
        broken=sum(_broken(pull) for pull in (through, *pulls) if pull is not None),
        gains=squares.sqrt() / sent[finite].norm(dim=1),
        squares=squares,
    )


LOOK = each_step(_look)


def measure(context: ModelContext) -> dict[str, GradientHealth]:
    """Return the health of the gradients at every layer, over the training batches."""
    return {name: _evidence(parts) for name, parts in LOOK.at(context).items()}


def _broken(tensor: torch.Tensor) -> int:
    return int((~tensor.isfinite()).sum())


def _evidence(parts: list[_Seen]) -> GradientHealth:
    gains = torch.cat([part.gains for part in parts])
    squares = torch.cat([part.squares for part in parts])
    median = float(gains.median()) if len(gains) else 0.0
    spikes = (gains > SPIKE * median) & (median > 0)
    return GradientHealth(
        source="batch",
        sample_size=len(gains),
        broken_input=sum(part.broken_input for part in parts),
        broken=sum(part.broken for part in parts),
        median_gain=median,
        worst_gain=float(gains.max()) if len(gains) else 0.0,
        spikes=int(spikes.sum()),
        spike_share=float(squares[spikes].sum() / squares.sum()) if spikes.any() else 0.0,
    )


PROBE = each_layer(GradientHealth, measure, mode="train", needs_codebook=False)
