"""A fill value stands for what was not measured, and the input is mostly that.

## Why it matters
An export writes -9999 or 1e20 where a value is missing. Scaled with the others, such a number squeezes
all that was measured to almost a constant. The largest part of the input's variance then tells where values
are missing: z_e follows it, the codes divide it, and a reconstruction loss is small once it is right.

## How to read it
The first layer with weights shows the input as the model made it: a model that masks such values passes. A
fill value is the smallest or largest number of a channel, comes again, and lies thirty times the whole
range of the others away from the nearest of them. Nearer to them, such as -1 or a padding of 0, it cannot
be told from data. A channel with fewer than 16 other numbers has none, as with a rare flag or with the ink
of a scanned page. The number is the share of the variance that would be gone with the fill values. It is an
error where that is most of it; a warning where a classifier does its task well all the same.

## Remedy
Take the values out before mean and standard deviation are computed, put the mean in their place (0 after
scaling), and leave them out of the loss. Give the model the mask as channels of its own where it matters what
is missing. Retraining alone cannot help: the numbers come with the data.

## References
- Little & Rubin 2019, Statistical Analysis with Missing Data, chapter 1: missing values and their mechanisms
"""

from vqdoctor.checks import _harm
from vqdoctor.checks._words import Problems, figure, measured, percent, problem
from vqdoctor.core.check import Advice, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import FirstInput, TaskMetrics
from vqdoctor.core.levels import Confidence, Severity

SQUEEZED = (
    "VQ301", "VQ313", "VQ314", "VQ501", "VQ502", "VQ504", "VQ507", "VQ509", "VQ511", "VQ601", "VQ607"
)  # fmt: skip
"""Findings on a z_e, codes and a task that follow the fill values."""


class Limits(CheckLimits):
    """When fill values are what the input is about."""

    variance: float = limit(
        0.5,
        "Least share of the input's variance that would be gone with the fill values: from half on they have "
        "more of it than all that was measured.",
    )


def evaluate(first: FirstInput, metrics: TaskMetrics | None, limits: Limits) -> Problems:
    """Fire where fill values have most of the variance of the first layer's input."""
    if first.fill is None or first.fill_variance < limits.variance:
        return
    classifies = metrics is not None and metrics.accuracy is not None
    well = classifies and (_harm.undone(metrics) or 0.0) <= _harm.UNDONE
    channels = "one channel has" if first.fill_channels == 1 else f"{first.fill_channels:,} channels have"
    yield problem(
        Severity.WARNING if well else Severity.ERROR,
        f"In the input of {first.module} {channels} a fill value, such as {figure(first.fill)} in channel "
        f"{first.fill_channel}: {percent(first.fill_share)} of the numbers have "
        f"{percent(first.fill_variance)} of the variance.",
        measured("fill_variance", first.fill_variance, limits.variance),
        measured("fill_share", first.fill_share),
        measured("fill", first.fill),
        confidence=Confidence.HIGH,
        explains=SQUEEZED,
    )


_FILLED = FirstInput.healthy(
    fill=-9.7, fill_channel=3, fill_channels=30, fill_share=0.0099, fill_variance=0.98
)

CHECK = Check(
    code="VQ321",
    name="fill-values",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="mask-missing-values",
        how="Take the fill values out of the statistics, of the input and of the loss.",
        code="missing = x == -9999\nx = (x - x[~missing].mean()) / x[~missing].std()\nx[missing] = 0.0\n"
        "loss = ((output - x)[~missing] ** 2).mean()",
        in_source=True,
    ),
    examples=(
        fires("-9999 for one value in a hundred", _FILLED),
        passes("a few of them among much else", _FILLED.replace(fill_variance=0.2)),
        passes("healthy", FirstInput.healthy()),
    ),
    doc=__doc__,
)
