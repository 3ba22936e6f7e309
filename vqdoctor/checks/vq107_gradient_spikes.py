"""Gradients at the VQ layer are not finite, or those of a few vectors outweigh all others.

## Why it matters
One NaN in a gradient makes every parameter NaN at the next step. A spike does the same harm more slowly:
the optimizer follows a few vectors, its memory of gradient sizes is spoilt for hundreds of steps, and
the codes that the others need are left behind.

## How to read it
Gradients through the layer and of both losses at z_e, on the first training batches: values that are NaN
or infinite, and |g| / |v| of each vector. A straight-through step has gain 1; the rotation trick has
|z_q| / |z_e|, which is large only where z_e is near zero while its code is not, as in a residual level
whose input was made a code of the level before. Vectors with over 1,000 times the median count as spikes,
and are a finding where they carry most of the gradient besides. Not finite values in z_e itself
lie before the layer: in the encoder, the data or the precision.

## Remedy
clip-gradients: clip the norm, skip steps that are not finite, and use a plain straight-through step
where the rotation trick makes the spikes.

## References
- Fifty et al. 2024, the rotation trick, arXiv:2410.06424
- lucidrains/vector-quantize-pytorch#177, #223: rotation diverges with stochastic codes
- rosinality/vq-vae-2-pytorch#65: an infinite latent loss under mixed precision
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vqdoctor.checks._specimens import GRADIENT_HEALTH
from vqdoctor.checks._words import figure, percent
from vqdoctor.core.check import Check, Example, limit
from vqdoctor.core.evidence import GradientHealth
from vqdoctor.core.finding import Measurement, Problem
from vqdoctor.core.levels import Severity


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a gradient counts as broken or as a spike."""

    broken: float = limit(
        0.0,
        "Largest number of values that may be NaN or infinite. A single one ruins the next step of every "
        "parameter before it.",
    )
    gain: float = limit(
        1000.0,
        "Largest |g| / |v| of a single vector. Trained layers with the rotation trick measured at most 4; "
        "residual levels whose input is already a code exceed 1,000.",
    )
    share: float = limit(
        0.5,
        "Largest share of the squared gradient that the spikes may carry. Healthy layers have no spikes; "
        "three vectors with gain 1e5 among 2,048 measured 1.0.",
    )


def evaluate(health: GradientHealth, limits: Limits) -> Iterator[Problem]:
    """Look for values that are not finite first, then for spikes."""
    broken = health.broken_input or health.broken
    if broken > limits.broken:
        where = "z_e" if health.broken_input else "the gradient at z_e"
        yield Problem(
            message=f"{broken:,} values of {where} are NaN or infinite in train mode.",
            severity=Severity.ERROR,
            measurements=(
                Measurement(name="broken", value=broken, limit=limits.broken),
                Measurement(name="vectors", value=health.sample_size),
            ),
        )
    elif health.worst_gain > limits.gain and health.spike_share > limits.share:
        yield Problem(
            message=f"The VQ layer multiplies the gradients of {health.spikes:,} vectors by up to "
            f"{figure(health.worst_gain)}, where the median is {figure(health.median_gain)}, and these carry "
            f"{percent(health.spike_share)} of the whole.",
            severity=Severity.WARNING,
            measurements=(
                Measurement(name="worst_gain", value=health.worst_gain, limit=limits.gain),
                Measurement(name="spike_share", value=health.spike_share, limit=limits.share),
                Measurement(name="spikes", value=health.spikes, unit="vectors"),
            ),
        )


CHECK = Check(
    code="VQ107",
    name="gradient-spikes",
    title="Gradients at the VQ layer are not finite, or those of a few vectors outweigh all others.",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("clip-gradients",),
    explained_by=("VQ901", "VQ108"),
    examples=(
        Example(
            title="the rotation trick on a residual of nearly zero",
            evidence=(GRADIENT_HEALTH.replace(median_gain=0.9, worst_gain=8e5, spikes=3, spike_share=0.98),),
            fires=True,
        ),
        Example(
            title="infinite distances in half precision",
            evidence=(GRADIENT_HEALTH.replace(broken=64),),
            fires=True,
        ),
        Example(title="straight-through", evidence=(GRADIENT_HEALTH,), fires=False),
        Example(
            title="the rotation trick on trained vectors",
            evidence=(GRADIENT_HEALTH.replace(median_gain=0.92, worst_gain=3.6),),
            fires=False,
        ),
        Example(
            title="a padded vector of zeros, whose gradient is small",
            evidence=(GRADIENT_HEALTH.replace(worst_gain=4e3, spikes=1, spike_share=0.001),),
            fires=False,
        ),
    ),
    doc=__doc__,
)
