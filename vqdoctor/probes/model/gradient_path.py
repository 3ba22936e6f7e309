"""Does a gradient that reaches z_q arrive at z_e? A vector-Jacobian product with a random cotangent.

Not the training loss: its commitment term reaches z_e by another way and hides a missing estimator.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import torch

from vqdoctor.core.evidence import Evidence, GradientPath, Unavailable
from vqdoctor.live.vectors import rows
from vqdoctor.probes.model._context import ModelContext, Step, gradient
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.probe import Probe

ROUNDING = 1e-4
"""Relative difference up to which two float32 gradients are the same."""


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield the gradient path of every layer."""
    pairs: dict[str, list[tuple[torch.Tensor, ...]]] = defaultdict(list)
    for steps in context.steps():
        for name, step in steps.items():
            pairs[name].append(_vjp(step))
    yield from by_layer(
        context,
        GradientPath,
        {name: _judge(name, *map(torch.cat, zip(*p, strict=True))) for name, p in pairs.items()},
    )


def _vjp(step: Step) -> tuple[torch.Tensor, ...]:
    """Return, per vector, the arriving g, the sent v, and the norms of z_e and z_q."""
    cotangent = torch.randn_like(step.z_q)
    arrived = gradient(step.z_q, step.z_e, cotangent)
    exists = torch.tensor([arrived is not None])
    g = torch.zeros_like(step.z_e) if arrived is None else arrived
    z_e, z_q, g, v = (rows(t, step.axis).flatten(0, 1).float() for t in (step.z_e, step.z_q, g, cotangent))
    return g, v, z_e.detach().norm(dim=1), z_q.detach().norm(dim=1), exists


def _judge(
    name: str, g: torch.Tensor, v: torch.Tensor, z_e: torch.Tensor, z_q: torch.Tensor, exists: torch.Tensor
) -> GradientPath:
    sent, arrived = v.norm(dim=1), g.norm(dim=1)
    gain = arrived / sent
    ratio = float(arrived.norm() / sent.norm())
    rotated = gain * z_e - z_q
    if not exists.any():
        estimator = "none"
    elif ratio == 0:
        estimator = "zero"
    elif float((g - v).norm() / sent.norm()) < ROUNDING:
        estimator = "straight-through"
    elif float(rotated.norm() / z_q.norm().clamp_min(1e-30)) < ROUNDING * 10:
        estimator = "rotation"
    else:
        estimator = "custom"
    return GradientPath(
        layer=name,
        source="batch",
        sample_size=len(g),
        estimator=estimator,
        ratio=ratio,
        cosine=float((g * v).sum() / (g.norm() * v.norm())) if ratio else None,
        zero_share=float((arrived == 0).float().mean()),
        worst_gain=float(gain.max()),
    )


PROBE = Probe(kinds=(GradientPath,), measure=measure)
