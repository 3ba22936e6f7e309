"""The codebook was trained for too few updates.

## Why it matters
Codes move only when they are chosen, and an EMA moves them by 1 - d of the way. A codebook needs
many small updates: the recipe that cured collapses on the model behind this tool trains 200 epochs
and more, with decay 0.95 and batches of 16.

## How to read it
Fewer than 1/(1 - d) updates is a warning: the EMA has not forgotten its start values even once.
Otherwise it is only advice, a note, and only where the usage is poor and the file records fewer
epochs than the recipe: more epochs do not cure a cause that is still at work.

## Remedy
more-updates: more epochs or smaller batches. Mend the causes of the earlier stages first.

## References
- EdoardoBotta/RQ-VAE-Recommender#65: 20,000 steps and more beside the mended loss
- LAPA#17: what shuffling and the number of steps do to a codebook from scratch
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vqdoctor.checks import _usage
from vqdoctor.checks._specimens import COLLAPSED_USAGE, EMA_STATE, TRAINING_RECORD, USAGE
from vqdoctor.checks._words import figure
from vqdoctor.core.check import CannotJudge, Check, Example, limit
from vqdoctor.core.evidence import EmaState, TrainingRecord, Usage
from vqdoctor.core.finding import Measurement, Problem
from vqdoctor.core.levels import Confidence, Severity


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long is long enough."""

    windows: float = limit(
        1.0,
        "Least number of updates, in units of 1/(1 - d). After one unit the start values still weigh 37 %.",
    )
    epochs: float = limit(
        200.0,
        "Epochs of the recipe. A codebook with poor usage and fewer of them gets the advice.",
    )


def evaluate(
    record: TrainingRecord, ema: EmaState | None, usage: Usage | None, limits: Limits
) -> Iterator[Problem]:
    """Warn where the EMA's window was not filled once; advise where usage is poor after few epochs."""
    decay = record.decay if record.decay is not None or ema is None else ema.decay
    updates = record.updates if record.updates is not None or ema is None else ema.updates
    if (decay is None or updates is None) and record.epochs is None:
        raise CannotJudge("the file records neither its updates and decay nor its epochs")
    if decay is not None and updates is not None and updates * (1 - decay) < limits.windows:
        yield _unfilled(updates, decay, limits)
    elif record.epochs is not None and record.epochs < limits.epochs and usage is not None and _poor(usage):
        yield _advice(record.epochs, limits)


def _poor(usage: Usage) -> bool:
    """Whether the usage breaks a default limit of the usage checks, as far as the sample can tell."""
    enough = _usage.effective_vectors(usage) >= usage.num_codes
    collapsed = usage.perplexity_high < _usage.least_perplexity(usage.num_codes)
    return enough and (collapsed or _usage.active_share(usage) < _usage.ACTIVE_WARNING)


def _unfilled(updates: int, decay: float, limits: Limits) -> Problem:
    # decay 1 never forgets: (1 - d) is 0, and no number of updates is enough
    needed = f"{limits.windows / (1 - decay):,.0f} updates" if decay < 1 else "infinitely many updates"
    return Problem(
        message=f"Only {updates:,} codebook updates were done, where decay {decay:g} needs {needed} to "
        "forget the start values.",
        severity=Severity.WARNING,
        measurements=(
            Measurement(name="windows", value=updates * (1 - decay), limit=limits.windows),
            Measurement(name="updates", value=updates),
        ),
    )


def _advice(epochs: int, limits: Limits) -> Problem:
    return Problem(
        message=f"Only {epochs} epochs were trained: once the causes are mended, give the codebook "
        f"{figure(limits.epochs)} or more, with EMA decay 0.95 and batches of 16.",
        severity=Severity.NOTE,
        confidence=Confidence.LOW,
        measurements=(Measurement(name="epochs", value=epochs, limit=limits.epochs),),
    )


CHECK = Check(
    code="VQ401",
    name="too-few-updates",
    title="The codebook was trained for too few updates.",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("more-updates",),
    explained_by=("VQ302",),
    examples=(
        Example(
            title="60 updates with decay 0.99",
            evidence=(TRAINING_RECORD.replace(updates=60, epochs=1), EMA_STATE.replace(updates=60)),
            fires=True,
        ),
        Example(
            title="30 epochs and a collapsed codebook",
            evidence=(TRAINING_RECORD, EMA_STATE, COLLAPSED_USAGE),
            fires=True,
        ),
        Example(
            title="30 epochs and a healthy codebook",
            evidence=(TRAINING_RECORD, EMA_STATE, USAGE),
            fires=False,
        ),
        Example(
            title="300 epochs",
            evidence=(TRAINING_RECORD.replace(epochs=300, updates=26_400), COLLAPSED_USAGE),
            fires=False,
        ),
    ),
    doc=__doc__,
)
