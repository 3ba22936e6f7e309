"""The codebook was trained for too few updates.

## Why it matters
Codes move only when they are chosen, and an EMA moves them by 1 - d of the way. A codebook needs
many small updates: the recipe that cured collapses on the model behind this tool trains 200 epochs
and more, with decay 0.95 and batches of 16.

## How to read it
Fewer than 1/(1 - d) updates is a warning: the EMA has not forgotten its start values even once.
Otherwise it is only advice, a note, and only where the usage is poor and the file records fewer
epochs than the recipe: more epochs do not cure a cause that is still at work. Training steps on a copy
(`--probe-steps 60`) that raise the perplexity of the batches make it more than a guess.

## Remedy
more-updates: more epochs or smaller batches. Fix the causes of the earlier stages first.

## References
- EdoardoBotta/RQ-VAE-Recommender#65: 20,000 steps and more beside the corrected loss
- LAPA#17: the effect of shuffling and of the number of steps on a codebook from scratch
"""

from vqdoctor.checks import _usage
from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.checks._words import Problems, figure, if_known, measured, note, warning
from vqdoctor.core.check import CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import EmaState, Trace, TrainingRecord, Usage
from vqdoctor.core.finding import Problem
from vqdoctor.core.levels import Confidence


class Limits(CheckLimits):
    """How long is long enough."""

    windows: float = limit(
        1.0,
        "Least number of updates, in units of 1/(1 - d). After one unit the start values still weigh 37 %.",
    )
    epochs: float = limit(
        200.0, "Epochs of the recipe. A codebook with poor usage and fewer of them gets the advice."
    )
    growth: float = limit(
        1.2,
        "Least growth of the batches' perplexity from the first to the last quarter of the trained steps for "
        "more training to be known to help. Digit models at rest measured 0.97 to 1.1 in 60 steps, one in "
        "its fourth epoch 2.0.",
    )


def evaluate(
    record: TrainingRecord, ema: EmaState | None, usage: Usage | None, trace: Trace | None, limits: Limits
) -> Problems:
    """Warn where the EMA's window was not filled once; advise where usage is poor after few epochs."""
    decay = record.decay if record.decay is not None or ema is None else ema.decay
    updates = record.updates if record.updates is not None or ema is None else ema.updates
    if (decay is None or updates is None) and record.epochs is None:
        raise CannotJudge("the file records neither its updates and decay nor its epochs")
    if decay is not None and updates is not None and updates * (1 - decay) < limits.windows:
        # decay 1 never forgets: (1 - d) is 0, and no number of updates is enough
        needed = f"{limits.windows / (1 - decay):,.0f} updates" if decay < 1 else "infinitely many updates"
        yield warning(
            f"Only {updates:,} codebook updates were done, where decay {decay:g} needs {needed} to "
            "forget the start values.",
            measured("windows", updates * (1 - decay), limits.windows),
            measured("updates", updates),
        )
    elif record.epochs is None or record.epochs >= limits.epochs:
        return
    elif usage is not None and not usage.implicit and _usage.poor(usage):
        quarter = 0 if trace is None else len(trace.perplexity) // 4
        growth = None
        if trace is not None and quarter:
            growth = sum(trace.perplexity[-quarter:]) / sum(trace.perplexity[:quarter])
        yield _advice(record.epochs, growth, limits, by_ema=decay is not None)


def _advice(epochs: int, growth: float | None, limits: Limits, *, by_ema: bool) -> Problem:
    rises = growth is not None and growth > limits.growth
    seen = f" and a few more steps multiply the perplexity by {figure(growth)}" if growth and rises else ""
    return note(
        f"Only {epochs} epochs were trained{seen}: once the causes are fixed, give the codebook "
        f"{figure(limits.epochs)} or more, with {'EMA decay 0.95 and ' * by_ema}batches of 16.",
        measured("epochs", epochs, limits.epochs),
        if_known("growth", growth, limits.growth),
        confidence=Confidence.MEDIUM if rises else Confidence.LOW,
        decide_with="" if growth is not None else "--probe-steps 60",
    )


CHECK = Check(
    code="VQ401",
    name="too-few-updates",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("more-updates",),
    explained_by=("VQ306", "VQ302"),
    examples=(
        fires("60 updates", TrainingRecord.healthy(updates=60, epochs=1), EmaState.healthy(updates=60)),
        fires("30 epochs, collapsed codebook", TrainingRecord.healthy(), EmaState.healthy(), COLLAPSED_USAGE),
        fires(
            "four epochs, and the perplexity of the batches still doubles",
            TrainingRecord.healthy(epochs=4),
            COLLAPSED_USAGE.replace(perplexity=5.1, perplexity_high=5.2, used=9, active=7),
            Trace.healthy(perplexity=(3.1, 3.3, 3.6, 4.1, 4.7, 5.2, 6.2, 6.6)),
        ),
        passes("30 epochs, healthy codebook", TrainingRecord.healthy(), EmaState.healthy(), Usage.healthy()),
        passes("300 epochs", TrainingRecord.healthy(epochs=300, updates=26_400), COLLAPSED_USAGE),
    ),
    doc=__doc__,
)
