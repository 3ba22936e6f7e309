"""z_e is so large that the channels of FSQ hardly leave their lowest and highest levels.

## Why it matters
FSQ bounds z_e by a tanh before it rounds. Where z_e is far larger than the levels, the tanh is flat: every
channel is at one of its two ends, a layer of 8 x 6 x 5 codes has 8 left that are used, and next to no
gradient comes back to the encoder, which therefore stays there.

## How to read it
The share of the codes at the two ends of each channel, over all data. A channel of 8 levels that are used
evenly has a quarter of its codes there, one of three levels two thirds; so what counts is how little is left
for the levels between them. The size of z_e beside it says whether the vectors are too large, or the layer
multiplies them itself. Channels of two levels (LFQ, BSQ) have ends alone and are not judged.

## Remedy
normalise-before-vq: bring z_e to a root mean square of about 1, and take any gain before the layer out.

## References
- Mentzer et al. 2023, Finite Scalar Quantization, arXiv:2309.15505, section 3.1: the bounding function
"""

from vqdoctor.checks import _harm, _levels
from vqdoctor.checks._words import Problems, figure, if_known, measured, percent, problem
from vqdoctor.core.check import Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import GradientPath, ImplicitLevels, TaskMetrics


class Limits(CheckLimits):
    """When a channel counts as saturated, and z_e as too large."""

    edge_share: float = limit(
        _levels.EDGE_SHARE,
        "Share of the codes at the ends of a channel from which it counts as saturated, for many levels: the "
        "inner ones then have a tenth of their even share, as with 0.967 for three levels, where even use "
        "puts 0.667 at the ends. Trained channels of the digit models measured 0.01 to 0.52, sound ones of "
        "three levels in classifiers 0.85 to 0.99, most under 0.96, saturated ones 0.96 to 1.",
    )
    scale: float = limit(
        3.0,
        "Least root mean square of z_e that the message calls too large: the slope of a tanh is 0.01 there.",
    )
    zero_share: float = limit(
        0.5,
        "Least share of the vectors without any gradient from which the saturation is known to hold the "
        "encoder: half of them. Sound FSQ layers measured 0.",
    )


def evaluate(
    levels: ImplicitLevels, gradient: GradientPath | None, metrics: TaskMetrics | None, limits: Limits
) -> Problems:
    """Fire where most of the channels are saturated."""
    ends, of = _levels.saturated(levels, limits.edge_share), len(levels.levels)
    if ends <= of / 2:
        return
    share = sum(levels.edge_share) / of
    too_large = levels.scale is not None and levels.scale > limits.scale
    size = (
        f": z_e has a root mean square of {figure(levels.scale or 0.0)}, where a tanh is flat"
        if too_large
        else ""
    )
    holds = gradient is not None and gradient.zero_share >= limits.zero_share
    held = (
        f", and {percent(gradient.zero_share)} of the vectors get no gradient" if gradient and holds else ""
    )
    yield problem(
        _harm.severity(metrics, acts=holds),
        f"{ends} of {of} channels are saturated, with {percent(share)} of the codes at their lowest or "
        f"highest level{size}{held}.",
        measured("edge_share", share, limits.edge_share),
        if_known("scale", levels.scale, limits.scale),
        if_known("zero_share", None if gradient is None else gradient.zero_share, limits.zero_share),
    )


_ENDS = ImplicitLevels.healthy(edge_share=(0.99, 0.98, 1.0))

CHECK = Check(
    code="VQ317",
    name="channels-saturated",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("normalise-before-vq",),
    explained_by=("VQ901", "VQ404"),
    examples=(
        fires("an encoder with a gain of 100", _ENDS.replace(scale=180.0)),
        fires(
            "the same, measured in training too",
            _ENDS.replace(scale=180.0),
            GradientPath.healthy(estimator="custom", ratio=0.07, zero_share=0.76),
            TaskMetrics.healthy(accuracy=None, bypass_accuracy=None),
        ),
        fires("a layer that multiplies z_e itself", _ENDS.replace(scale=0.7)),
        passes("all levels in use", ImplicitLevels.healthy(), GradientPath.healthy()),
        passes(
            "LFQ has ends alone", _ENDS.replace(levels=(2, 2, 2), used=(2, 2, 2), edge_share=(1.0, 1.0, 1.0))
        ),
    ),
    doc=__doc__,
)
