"""The encoder gives nearly the same output for everything.

## Why it matters
Where z_e does not vary there is nothing to quantize: one code is right for all of it, and no codebook,
however placed or revived, can be used. The fault is in front of the codebook, or in front of the model.

## How to read it
The spread is the root mean square distance to the mean over the root mean square length. A small spread
of z_e on input that varies: the encoder has collapsed, starved of gradient, drowned by the VQ loss, or
dead (a ReLU at the end whose inputs are all negative). If the codes still tell the small differences apart,
the layer works. Input that is itself nearly constant, such as silence, or that has one or two
directions only, such as a single tone (a tone at all phases has rank 2), leaves any codebook unused: a
speech codec's healthy codebook gave 8 of its 512 codes for a modem tone. Then the data is at fault, and
this is a note: examine the model on data that varies.

## Remedy
wake-encoder: fix the cause that starves the encoder, and start it afresh.

## References
- Measured: a digit model without a straight-through estimator ended at a spread of 0.007
- Łańcucki et al. 2020, arXiv:2005.08520: batch normalisation before the VQ layer
"""

from vqdoctor.checks import _usage
from vqdoctor.checks._causes import BEFORE_USE
from vqdoctor.checks._encoder import CONSTANT
from vqdoctor.checks._reach import hides_channels
from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.checks._words import Problems, error, figure, measured, note
from vqdoctor.core.check import Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import EncoderSpread, FirstInput, Usage
from vqdoctor.core.finding import Measurement, Problem
from vqdoctor.core.levels import Confidence


class Limits(CheckLimits):
    """When z_e, and when the input, counts as constant."""

    output_spread: float = limit(
        CONSTANT,
        "Least spread of z_e. Digit models measured 0.85 to 0.97, a collapsed one 0.007; convolutional "
        "encoders of 2 to 10 layers start at 0.27 to 0.02.",
    )
    input_spread: float = limit(
        CONSTANT, "Least spread of the samples. Digits measure 0.56, noise and speech about 1, silence 0."
    )
    input_rank: float = limit(
        2.5,
        "Least effective rank of the samples. Digits measure 20, a tone at random phases 2.0, also with "
        "noise 30 dB below it.",
    )


def evaluate(
    spread: EncoderSpread, usage: Usage | None, first: FirstInput | None, limits: Limits
) -> Problems:
    """Blame the data where it hardly varies and the codes show it; else an encoder whose output does not.

    Channels that the scales of others hide vary all the same (VQ314). A working encoder varies with a tone:
    where z_e is constant, the encoder is at fault however few the directions of the input.
    """
    constant = spread.output_spread < limits.output_spread
    if usage is not None and not _usage.few(usage):
        return  # the codes distinguish the small differences
    if spread.input_spread is not None and spread.input_spread < limits.input_spread:
        if (constant or usage is not None) and not hides_channels(first):
            yield _data(
                "The input is nearly constant",
                measured("input_spread", spread.input_spread, limits.input_spread),
            )
    elif spread.input_rank is not None and spread.input_rank < limits.input_rank and not constant:
        if usage is not None and not hides_channels(first):
            yield _data(
                f"The input varies in {figure(spread.input_rank)} directions only, as a single tone does",
                measured("input_rank", spread.input_rank, limits.input_rank),
            )
    elif constant:
        known = spread.input_spread is not None
        beside = f", while the input's is {figure(spread.input_spread)}" if spread.input_spread else ""
        yield error(
            "The encoder gives nearly the same output for everything: its spread is "
            f"{figure(spread.output_spread)} of its size{beside}.",
            measured("output_spread", spread.output_spread, limits.output_spread),
            confidence=Confidence.HIGH if known else Confidence.MEDIUM,
            decide_with="" if known else "--data batch.npz",
        )


def _data(what: str, measurement: Measurement) -> Problem:
    return note(
        f"{what} ({figure(measurement.value)}): the data and not the model leaves the codes unused here.",
        measurement,
        decide_with="--data with samples that vary",
    )


CHECK = Check(
    code="VQ507",
    name="encoder-collapsed",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("wake-encoder",),
    explained_by=tuple(code for code in BEFORE_USE if code not in ("VQ301", "VQ313")),
    examples=(
        fires("a starved encoder, on digits", EncoderSpread.healthy(output_spread=0.0069), COLLAPSED_USAGE),
        fires(
            "silence",
            EncoderSpread.healthy(output_spread=0.0, input_spread=0.0, input_rank=0.0),
            COLLAPSED_USAGE,
        ),
        fires(
            "a single tone at random phases, with some noise",
            EncoderSpread.healthy(output_spread=0.4, input_spread=1.0, input_rank=2.01),
            COLLAPSED_USAGE.replace(used=8, active=8, perplexity=3.3, perplexity_high=3.4),
        ),
        passes(
            "pressures in Pa beside fractions of one: the input varies behind its scales",
            EncoderSpread.healthy(output_spread=0.98, input_spread=0.003, input_rank=1.2),
            COLLAPSED_USAGE,
            FirstInput.healthy(rms=35_800.0, channel_rank=1.2, scaled_rank=7.0),
        ),
        passes("healthy", EncoderSpread.healthy(), Usage.healthy()),
        passes(
            "small differences on a large offset, all of them told apart",
            EncoderSpread.healthy(output_spread=0.004),
            Usage.healthy(),
        ),
        passes("collapsed codebook, encoder that varies", EncoderSpread.healthy(), COLLAPSED_USAGE),
    ),
    doc=__doc__,
)
