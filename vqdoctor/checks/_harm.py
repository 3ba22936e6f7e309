"""The harm of a cause: what the codes lose against z_e, and what the training of the encoder itself lost.

Putting z_e in place of the codes shows the harm that the codes do. It shows no harm that was done to the
encoder, since z_e is then as bad as its codes. There a cause that is proven needs a sign that it acts, and a
task with something left to lose.
"""

from __future__ import annotations

import math

from vqdoctor.checks import _scale
from vqdoctor.checks._reach import RAW
from vqdoctor.core.evidence import (
    CodebookGradient,
    DataMatch,
    Directions,
    EmaRelation,
    FirstInput,
    LossBalance,
    OptimizerMemory,
    TaskMetrics,
)
from vqdoctor.core.levels import Severity
from vqdoctor.core.skill import LOST

ERRORS = 3.0
"""Least size of a gap in accuracy, in standard errors of a difference of two accuracies."""


OUTPULLED = 1.0
"""Least ratio of the VQ loss's gradient and the task's at z_e at which the encoder serves the VQ loss first.
Healthy models with a codebook measured at most 0.65, over-weighted ones that lost accuracy at least 1.05.
A healthy Gumbel layer, whose loss rewards variety and is not judged, measured 1.002."""
APART = 0.2
"""Least growth of the task loss, as a share, by z_e in place of the codes that shows an encoder apart from
them. It counts only beside a proven cause, since a decoder that never saw z_e may be so in health too: sound
models measured -0.6 to 5.4, two whose VQ loss trained no encoder 0.3 and 0.9."""
DONE = 0.95
"""Accuracy from which on a model has next to nothing left that it could have lost."""
COST = 0.05
"""Largest share of the skill with z_e that the codes may cost beside a cause that is already found: 5 points
of an accuracy of 1. Healthy models cost at most 0.034 (an EMA codec of pulses), one with codes rewritten
without their sums 0.12."""
DIRECTIONS, NARROW_DIM = 5.0, 8.0
"""Most directions of a collapsed z_e; largest dimension of codes that are narrow by design (VQ509)."""
UNDONE = 0.3
"""Largest share of what one mean code gets wrong that a sound model gets wrong with its own codes, where z_e
has lost its directions. A healthy image autoencoder measured 0.18, the same with a commitment weight of 1e-6
0.36, and with a summed VQ loss 0.58: z_e was then as bad as its codes."""
FAILS = 0.5
"""Share of the task still to do from which a model fails at it: VQ601 calls a skill of half well done."""


def severity(metrics: TaskMetrics | None, *, acts: bool = False) -> Severity:
    """Return how bad a proven cause is by what it cost: an error where the task is lost, or the cause acts.

    Args:
        metrics: how the model does its task; None where no model was run.
        acts: whether what the cause does to the encoder was measured: see `outpulled` and `apart`.
    """
    if metrics is None:
        return Severity.WARNING
    undone = metrics.accuracy is None or metrics.accuracy < DONE
    return Severity.ERROR if _is_lost(metrics) or (acts and undone) else Severity.WARNING


def costs(metrics: TaskMetrics) -> bool:
    """Whether the codes cost more of the task than any healthy model lost: a cause beside it did harm."""
    return _is_lost(metrics, COST)


def undone(metrics: TaskMetrics | None) -> float | None:
    """Return the share of the task that is still to do: 0 for perfect, 1 for no better than one mean code.

    For a classifier, errors over those of the most frequent label; else the loss over that with the mean
    code. None where no model was run, or nothing can be lost.
    """
    if metrics is None:
        return None
    if metrics.accuracy is not None and metrics.chance_accuracy is not None:
        return (1 - metrics.accuracy) / (1 - metrics.chance_accuracy) if metrics.chance_accuracy < 1 else None
    return metrics.loss / metrics.mean_code_loss if metrics.mean_code_loss > 0 else None


def unlearned(metrics: TaskMetrics | None) -> bool:
    """Whether more of the task is still to do than a sound model leaves."""
    return (undone(metrics) or 0.0) > UNDONE


def outgrown(match: DataMatch | None, first: FirstInput | None, size: float = RAW) -> bool:
    """Whether z_e has the size of a raw input, which the input has not: nothing held the encoder."""
    return match is not None and first is not None and match.data_rms >= size > first.rms


def narrowed(directions: Directions | None, metrics: TaskMetrics | None) -> bool:
    """Whether z_e has lost its directions and the task shows it: the encoder itself is ruined."""
    return unlearned(metrics) and is_narrow(directions)


def is_narrow(directions: Directions | None) -> bool:
    """Whether z_e is left with a handful of the directions that its dimensions and the input have."""
    if directions is None or directions.vector_directions is None:
        return False
    few = 0 < directions.vector_directions <= DIRECTIONS < NARROW_DIM < directions.dim
    return few and (directions.input_directions or DIRECTIONS * 2) >= 2 * directions.vector_directions


def outpulled(balance: LossBalance | None) -> bool:
    """Whether the VQ loss pulls harder at the encoder than the task does."""
    return balance is not None and balance.ratio is not None and balance.ratio > OUTPULLED


def waits(codebook: CodebookGradient | None) -> bool:
    """Whether the VQ loss alone can train the codes: they are parameters, and no EMA writes them."""
    return codebook is not None and codebook.trainable and not codebook.ema_owned


def lost(codebook: CodebookGradient | None, memory: OptimizerMemory | None) -> bool:
    """Whether the saved optimizer remembers gradients of the encoder and none of codes that the losses reach.

    An optimizer that also remembers none of the encoder trained the decoder alone.
    """
    if codebook is None or codebook.ema_owned or not codebook.gradient or memory is None:
        return False
    trained = memory.sample_size > 0 and memory.before_gradient != 0
    return trained and memory.codebook_listed is True and memory.codebook_has_state is False


def apart(metrics: TaskMetrics | None, relation: EmaRelation | None) -> bool:
    """Whether z_e lies so far from its codes that the decoder, which learned from them, does worse."""
    if metrics is None or metrics.bypass_loss is None or _scale.broken(relation):
        return False  # codes of another scale are apart from z_e whatever holds it
    return metrics.bypass_loss > (1 + APART) * metrics.loss


def is_gap(metrics: TaskMetrics, errors: float = ERRORS) -> bool:
    """Whether the accuracy with z_e exceeds that with the codes by more than chance makes of this sample."""
    with_codes, without = metrics.accuracy, metrics.bypass_accuracy
    if with_codes is None or without is None:
        return False
    noise = math.sqrt((with_codes * (1 - with_codes) + without * (1 - without)) / max(metrics.sample_size, 1))
    return without - with_codes > errors * noise


def _is_lost(metrics: TaskMetrics, share: float = LOST) -> bool:
    """Compare accuracies above chance where there are any, else the losses below that of one mean code."""
    if metrics.accuracy is not None and metrics.bypass_accuracy is not None and metrics.chance_accuracy:
        skill = metrics.bypass_accuracy - metrics.chance_accuracy
        return skill > 0 and is_gap(metrics) and metrics.bypass_accuracy - metrics.accuracy > share * skill
    if not metrics.bypass_loss:  # a loss of exactly 0 shows that what was bypassed is the model itself
        return False
    gained = metrics.mean_code_loss - metrics.bypass_loss
    return gained > 0 and metrics.loss - metrics.bypass_loss > share * gained
