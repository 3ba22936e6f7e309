"""The notes on a retraining: its batches, its optimizer, and the one in the file."""

from __future__ import annotations

from collections.abc import Iterable

from vqdoctor.saved.optimizer import Slot
from vqdoctor.saved.training import SavedTraining
from vqdoctor.training.optimizer import Optimizers
from vqdoctor.training.outcome import Outcome
from vqdoctor.training.splits import Splits

UNTREATED = "no finding asks for a remedy, so the model was trained on as it was"
NEGATIVE = "the VQ loss is below 0 where it rewards the entropy of the usage, as that of LFQ does: no fault"
REPEATED = (
    'the task answers batches("stop") with its train or val split: for early stopping a tenth of the train '
    "batches was held back instead"
)
MIXED = (
    "the train batches come in the same order at every pass: their samples were drawn anew for every epoch "
    "(--skip shuffle leaves them as they come)"
)
NOT_MIXED = (
    "the samples of the train batches were not shuffled: the task loss of a batch is not made up of the "
    "losses of its parts, or its tensors have no axis of samples in common"
)
IN_ORDER = (
    "the samples of the train batches were not shuffled: what a batch gives depends on the one before it, so "
    "that both must come as they are served"
)
NO_OPTIMIZER = (
    "the output has no optimizer state, as the input has none: a training from it starts with a new one"
)

VANISHED = 1e-3
"""Least learning rate in the input's optimizer, as a share of the retraining's, with which one can go on."""
HIGHER = 2.0
"""Largest such share with which a note is left out."""


def notes_of(outcome: Outcome, saved: SavedTraining) -> list[str]:
    """Return the notes on a finished retraining.

    Args:
        outcome: the retraining.
        saved: the checkpoint's own training.
    """
    done, optimizers = outcome.retraining, outcome.trainer.optimizers
    notes = [] if outcome.plan.remedies else [UNTREATED]
    notes += [NEGATIVE] * any((row.vq_loss or 0.0) < 0 for row in done.epochs)
    notes += of_splits(outcome.trainer.splits, shuffled=done.plan.shuffled)
    notes += [optimizers.told, *([] if saved.optimizers else [NO_OPTIMIZER])]
    notes += other_rates(saved.slots, optimizers) if done.written else []
    return [*notes, *outcome.trainer.notes]


def of_splits(splits: Splits, *, shuffled: bool) -> list[str]:
    """Return the notes on a training's batches.

    Args:
        splits: the batches.
        shuffled: whether the plan asked for mixed samples.
    """
    notes = [REPEATED] * splits.repeats + [MIXED] * splits.mixes
    if shuffled and not splits.shuffles_itself and not splits.can_mix:
        notes.append(IN_ORDER if splits.keeps_order else NOT_MIXED)
    return notes


def other_rates(slots: Iterable[Slot], used: Optimizers) -> list[str]:
    """Return a note where the optimizer in the file keeps another learning rate than the retraining had.

    Tensors alone are written anew: a rate that moves no weight, or that wrecked the model, is as it was.
    """
    kept = max((slot.rate for slot in slots if slot.rate is not None), default=None)
    most = max(max(rates) for rates in used.rates)
    if kept is None or VANISHED * most <= kept <= HIGHER * most:
        return []
    return [
        f"the optimizer in the file keeps its learning rate {kept:g}, and the retraining had {most:g}: set "
        "another before you train on"
    ]
