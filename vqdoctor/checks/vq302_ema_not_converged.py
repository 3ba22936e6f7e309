"""The EMA statistics are still mostly their start values.

## Why it matters
An EMA codebook is sums over counts. With decay d the start values still weigh d^t after t updates,
so with decay 0.9999 and 1,000 updates the codebook is nine tenths where it was initialised: it cannot
follow the encoder, which settles on the few codes that happen to lie near. The counts lie too: with
start values of one they say "all codes equally used" for a long time (perplexity 166 of 256 where
the data said 3).

## How to read it
The number is d^t. Over 0.05 the statistics are not those of the data yet: a warning. Over 0.5 they
are mostly start values: an error. Usage from EMA counts is not reported while this holds. Nor is it where the
file records no d, and the smallest count, which bounds what the start left, makes up most of the
perplexity. Then give data.
A file need not record d. The smallest count proves it where it is exactly what d leaves of a start at one
after the recorded updates, in float32, to the last bit. With a model and data it is the factor by which a
training pass shrinks the counts of codes that no vector chose.

## Remedy
faster-ema: decay 0.95 to 0.99. data-init: start the codebook, the sums and the counts from data; alone it
leaves a stalled EMA where it began.

## References
- van den Oord et al. 2017, arXiv:1711.00937, appendix A.1: the EMA update, decay 0.99
- google-deepmind/sonnet#187: the fate of unused codes under an EMA
"""

from vqdoctor.checks._words import Problems, if_known, measured, percent, problem
from vqdoctor.core.check import CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import EmaState, TrainForward
from vqdoctor.core.levels import Severity


class Limits(CheckLimits):
    """How much the start values may still weigh."""

    start_weight: float = limit(
        0.05,
        "Largest weight d^t of the start values. Under 5 % they hardly move the perplexity of the "
        "counts; three times 1/(1 - d) updates reach it.",
    )
    mostly_start: float = limit(
        0.5, "Weight from which it is an error: the codebook holds more of its start values than of the data."
    )


def evaluate(ema: EmaState, forward: TrainForward | None, limits: Limits) -> Problems:
    """Compare d^t with its limits; counts that were never written allow no further judgement."""
    decay, weight = ema.decay, ema.start_weight
    if decay is None and forward is not None and forward.decay is not None and ema.updates is not None:
        decay = forward.decay
        weight = decay**ema.updates
    if weight is None:
        raise CannotJudge("the EMA's decay or the number of its updates is not known")
    if weight <= limits.start_weight:
        if ema.never_written:
            raise CannotJudge("the EMA counts were never written: this model does not use its EMA")
        return
    mostly = weight > limits.mostly_start
    known = decay is not None and ema.updates is not None
    when = f"After {ema.updates:,} updates with decay {decay:g}" if known else "As far as recorded"
    yield problem(
        Severity.ERROR if mostly else Severity.WARNING,
        f"{when}, the codebook's EMA statistics are still {percent(weight)} start "
        "values, so the codebook cannot follow the encoder.",
        measured("start_weight", weight, limits.mostly_start if mostly else limits.start_weight),
        if_known("decay", decay),
        if_known("updates", ema.updates),
    )


CHECK = Check(
    code="VQ302",
    name="ema-not-converged",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("faster-ema", "data-init"),
    explained_by=("VQ306",),
    examples=(
        fires("decay 0.9999, 550 updates", EmaState.healthy(decay=0.9999, updates=550, start_weight=0.946)),
        fires(
            "saved before the first update",
            EmaState.healthy(
                never_written=True, updates=0, start_weight=1.0, total=256.0, count_min=1.0, count_max=1.0
            ),
        ),
        fires(
            "no record of a decay of 0.99999, which a training pass shows",
            EmaState.healthy(decay=None, updates=900, start_weight=None),
            TrainForward.healthy(decay=0.99999),
        ),
        passes("decay 0.99 and 2,640 updates", EmaState.healthy()),
        passes("decay 0.99 and 550 updates", EmaState.healthy(updates=550, start_weight=0.004)),
    ),
    doc=__doc__,
)
