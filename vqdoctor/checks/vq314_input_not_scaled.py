"""The input keeps a large scale of its own, and z_e takes it over: the codes cannot follow.

## Why it matters
An encoder at its start passes the scale of its input on. From images of 0 to 255 it makes a z_e in the
hundreds or thousands, while the codes are drawn near 0 and each step of Adam moves them by the learning
rate at most. The few codes on the near side get all vectors, the VQ loss is huge, and the rest of the
codebook stays behind.

## How to read it
Two measurements, and both must hold, of numbers that are large all alike. The size of the numbers that the
first layer with weights gets: a model that divides by 255 itself passes. The size of z_e over the longest
way that one number of a code can have gone, the learning rate times the updates in the file's optimizer. It
is only judged for Adam and its kin, whose steps are bounded by it, and where an optimizer moves the codes:
an EMA follows at any scale. Where z_e is that large behind an input of ordinary size, it ran away from the
codes, and VQ202 judges.

Tables of measurements have another scale in every column. Where the largest columns alone decide the
directions of the input, z_e follows them and hides all others: a pressure in Pa beside fractions of one. It
counts where the input is raw, its channels have at least twice the effective rank once each has standard
deviation 1, z_e has as few directions as the input, the codes did not reach it (quantizing loses 40 % of its
variance and more), and most of the task is still to do. A raw input without either sign, as of numbers around
1,013, is a warning where the codes did not reach z_e and more than half of the task is still to do.

## Remedy
Bring the input to mean 0 and standard deviation 1, or divide it by its range, in training and
afterwards alike. normalise-before-vq: a norm layer before the VQ layer takes the scale out there as
well.

## References
- LeCun et al. 1998, Efficient BackProp, section 4.3: inputs of mean zero and equal covariance
- Kingma & Ba 2015, Adam, arXiv:1412.6980, section 2.1: a step is bounded by the learning rate
"""

from vqdoctor.checks import _harm
from vqdoctor.checks._reach import BEYOND, FEW, RAW, hides_channels, is_raw
from vqdoctor.checks._words import Problems, error, figure, if_known, measured, percent, warning
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import DataMatch, FirstInput, TaskMetrics, WeightDecay
from vqdoctor.core.levels import Confidence

SCALE, NORMALISE = "scale-the-input", "normalise-before-vq"
REMEDIES = (SCALE, NORMALISE)
"""The cause first: a norm layer behind the encoder leaves this to learn from a raw input."""
OF_LARGE_UNITS = ("VQ201", "VQ301", "VQ313", "VQ501", "VQ502", "VQ504", "VQ607")
"""Findings on a z_e in the units of one channel: a VQ loss with the square of them, and codes far behind."""


class Limits(CheckLimits):
    """When the input counts as raw, and z_e as out of reach."""

    raw: float = limit(
        RAW,
        "Least size (root mean square) of the first layer's input. Standardised inputs have 1, images of 0 "
        "to 1 about 0.5, accelerations in m/s² 10; images of 0 to 255 have 100 to 150.",
    )
    beyond: float = limit(
        BEYOND,
        "Least size of z_e, in ways that a code can have gone. Models trained on scaled digits measured 1.1, "
        "and 1.6 behind an encoder gain of 40; one on digits of 0 to 255 measured 6,700.",
    )
    unreached: float = limit(
        0.4,
        "Least quantization error, as a share of the variance of z_e, at which codes have not reached a z_e "
        "of the units of a few channels. Tables in raw units that failed measured 0.57 to 1.05, those that "
        "did well 0.11 to 0.25, and standardised ones 0.01 to 0.09.",
    )


def evaluate(
    match: DataMatch,
    decay: WeightDecay | None,
    first: FirstInput,
    metrics: TaskMetrics | None,
    limits: Limits,
) -> Problems:
    """Fire where the first layer's input is raw, and z_e beyond the reach of the codes."""
    way, undone = None if decay is None else decay.reach, _harm.undone(metrics) or 0.0
    if _in_large_units(match, first, metrics, limits):
        yield error(
            f"The first layer ({first.module}) gets channels of such different sizes that they vary in "
            f"{figure(first.channel_rank or 0.0)} directions, and in {figure(first.scaled_rank or 0.0)} once "
            f"each has standard deviation 1: z_e follows the largest, and quantizing loses "
            f"{percent(match.quantization_error)} of its variance.",
            measured("input_size", first.rms, limits.raw),
            if_known("channel_rank", first.channel_rank, FEW),
            if_known("scaled_rank", first.scaled_rank),
            measured("quantization_error", match.quantization_error, limits.unreached),
            measured("z_e_rank", match.data_effective_rank, FEW),
            remedies=REMEDIES,
            explains=OF_LARGE_UNITS,
        )
    elif way is not None and is_raw(match, decay, first, limits.raw, limits.beyond):
        yield error(
            f"The first layer ({first.module}) gets numbers of size {figure(first.rms)}, and z_e has size "
            f"{figure(match.data_rms)}, while a code can have moved by {figure(way)} at most.",
            measured("input_size", first.rms, limits.raw),
            measured("z_e_size", match.data_rms, limits.beyond * way),
            measured("reach", way),
            confidence=Confidence.HIGH,
            remedies=REMEDIES,
        )
    elif first.rms >= limits.raw and undone > _harm.FAILS and match.quantization_error >= limits.unreached:
        yield warning(
            f"The first layer ({first.module}) gets numbers of size {figure(first.rms)}, quantizing loses "
            f"{percent(match.quantization_error)} of z_e's variance, and {percent(undone)} of the task is "
            "still to do.",
            measured("input_size", first.rms, limits.raw),
            measured("quantization_error", match.quantization_error, limits.unreached),
            measured("undone", undone, _harm.FAILS),
            confidence=Confidence.MEDIUM,
            remedies=REMEDIES,
        )
    elif way is None:
        raise CannotJudge("it is not known how far the optimizer can have moved a code")


def _in_large_units(match: DataMatch, first: FirstInput, metrics: TaskMetrics | None, limits: Limits) -> bool:
    """Whether z_e follows a few channels of a raw input, which hide the others, and codes and task fail.

    A residual level of a sound model may leave as much of what it is given.
    """
    undone = _harm.undone(metrics)
    fails = undone is None or undone > _harm.UNDONE
    follows = 0 < match.data_effective_rank < FEW and match.quantization_error >= limits.unreached
    return first.rms >= limits.raw and hides_channels(first) and follows and fails


_RAW = FirstInput.healthy(rms=147.0, largest=255.0)
_FAR = DataMatch.healthy(data_rms=4042.0, data_std=12_559.0, scale_ratio=50_759.0)
_LONG = WeightDecay.healthy(reach=5.3)
_SHORT = WeightDecay.healthy(reach=0.6)

CHECK = Check(
    code="VQ314",
    name="input-not-scaled",
    evaluate=evaluate,
    limits=Limits(),
    remedies=(NORMALISE,),
    advice=Advice(
        name=SCALE,
        how="Bring the input to mean 0 and standard deviation 1 over the training data.",
        code="mean, std = x_train.mean(), x_train.std()\nx = (x - mean) / std   # in training and afterwards",
    ),
    explained_by=("VQ901", "VQ101", "VQ102", "VQ103", "VQ306", "VQ404"),
    examples=(
        fires("images of 0 to 255", _FAR, _SHORT, _RAW),
        fires(
            "pressures in Pa beside fractions of one, in an EMA's or any other codebook",
            DataMatch.healthy(quantization_error=0.59, data_effective_rank=1.0),
            FirstInput.healthy(rms=35_800.0, largest=1e5, channel_rank=1.2, scaled_rank=7.0),
        ),
        fires(
            "a pressure around 1,013 beside columns of other offsets: codes and task fail",
            FirstInput.healthy(rms=508.0, largest=1031.0),
            DataMatch.healthy(data_rms=1.66, quantization_error=0.72),
            TaskMetrics.healthy(accuracy=0.532, bypass_accuracy=0.528, chance_accuracy=0.186),
        ),
        passes(
            "the same units, which the codes have followed",
            DataMatch.healthy(quantization_error=0.11, data_effective_rank=1.1),
            WeightDecay.healthy(reach=5.3),
            FirstInput.healthy(rms=35_800.0, largest=1e5, channel_rank=1.2, scaled_rank=7.0),
        ),
        passes("healthy", DataMatch.healthy(), _LONG, FirstInput.healthy()),
        passes("z_e ran away behind an ordinary input", _FAR, _SHORT, FirstInput.healthy()),
        passes("a raw input that the encoder scales", DataMatch.healthy(), _LONG, _RAW),
    ),
    doc=__doc__,
)
