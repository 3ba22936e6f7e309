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
The rotation trick multiplies a gradient by |z_q| / |z_e|, which has no bound where z_e is near zero, as
in residual levels whose input is already a code. A straight-through step (`rotation_trick=False`) has
gain one everywhere. Clipping (`clip-gradients`) keeps the direction of the spike; it limits the damage and
leaves the cause. NaN has a first place: `torch.autograd.set_detect_anomaly(True)` names it.

## References
- Fifty et al. 2024, the rotation trick, arXiv:2410.06424
- lucidrains/vector-quantize-pytorch#177, #223: rotation diverges with stochastic codes
- rosinality/vq-vae-2-pytorch#65: an infinite latent loss under mixed precision
"""

from vqdoctor.checks._words import Problems, error, figure, measured, percent, warning
from vqdoctor.core.check import CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import GradientHealth, Initialisation


class Limits(CheckLimits):
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


def evaluate(health: GradientHealth, start: Initialisation | None, limits: Limits) -> Problems:
    """Look for values that are not finite first, then for spikes."""
    broken = health.broken_input or health.broken
    if broken > limits.broken:
        where = "z_e" if health.broken_input else "the gradient at z_e"
        yield error(
            f"{broken:,} values of {where} are NaN or infinite in train mode.",
            measured("broken", broken, limits.broken),
            measured("vectors", health.sample_size),
        )
    elif start is not None and start.identical_rows == start.sample_size > 1:
        raise CannotJudge("all codes are one and the same, and no vector is near its code (VQ306)")
    elif health.worst_gain > limits.gain and health.spike_share > limits.share:
        yield warning(
            f"The VQ layer multiplies the gradients of {health.spikes:,} vectors by up to "
            f"{figure(health.worst_gain)}, where the median is {figure(health.median_gain)}, and these carry "
            f"{percent(health.spike_share)} of the whole.",
            measured("worst_gain", health.worst_gain, limits.gain),
            measured("spike_share", health.spike_share, limits.share),
            measured("spikes", health.spikes, unit="vectors"),
        )


CHECK = Check(
    code="VQ107",
    name="gradient-spikes",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("clip-gradients",),
    explained_by=("VQ901", "VQ606", "VQ108", "VQ404"),
    examples=(
        fires(
            "rotation trick on a residual of nearly zero",
            GradientHealth.healthy(median_gain=0.9, worst_gain=8e5, spikes=3, spike_share=0.98),
        ),
        fires("infinite distances in half precision", GradientHealth.healthy(broken=64)),
        passes("straight-through", GradientHealth.healthy()),
        passes("rotation trick, trained vectors", GradientHealth.healthy(median_gain=0.92, worst_gain=3.6)),
        passes(
            "a padded vector of zeros", GradientHealth.healthy(worst_gain=4e3, spikes=1, spike_share=0.001)
        ),
    ),
    doc=__doc__,
)
