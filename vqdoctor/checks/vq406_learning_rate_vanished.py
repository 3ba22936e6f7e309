"""The learning rate fell to nothing long before the training ended.

## Why it matters
A scheduler that is meant to be stepped once an epoch, and is stepped after every batch, comes down as many
times too early as an epoch has batches. From then on no weight moves: the loss stands still, the encoder and
the codes stay near their start, and more epochs change nothing.

## How to read it
The learning rate in the file's optimizer is compared with the highest that it records. A cosine or a
straight line ends at 0, at the rounding of float64 beside 0, or at a floor that somebody chose: so it is in
health. Only a factor applied again and again leaves a positive rate below a 1e22nd of its start. Such a rate
falls by the same factor in every update, which says from which update on a step of Adam was lost in the
rounding of the weights: a float32 number keeps 24 binary digits. The fall itself is certain. The harm is
measured by the task: an error where more of the task is left to do than a sound model leaves, a note where
the task is done.

## Remedy
step-per-epoch: call `scheduler.step()` once an epoch, or give the scheduler its step size in batches. Train
again from the start: a model that is resumed gets the vanished rate with its optimizer.

## References
- torch.optim.lr_scheduler.StepLR: "decays the learning rate of each parameter group by gamma every step_size
  epochs"
"""

import math

from vqdoctor.checks import _harm
from vqdoctor.checks._words import Problems, figure, if_known, measured, percent, problem
from vqdoctor.core.check import Advice, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import StepSize, TaskMetrics
from vqdoctor.core.levels import Confidence, Severity

_ROUNDING = 2.0**-24
"""Change of a weight, as a share of it, that float32 rounds away."""


class Limits(CheckLimits):
    """When a learning rate has vanished, and how early is too early."""

    fallen: float = limit(
        1e-22,
        "Largest ratio of the learning rate and its highest value that only a repeated factor leaves. A "
        "cosine is 2.5e-12 of its start one update before the end of a million, and 0 at the end; OneCycleLR "
        "ends at 4e-6. LinearLR may end at the rounding of float64 beside 0, 1e-17 to 1e-20 of its start.",
    )
    idle: float = limit(
        0.5,
        "Least share of the updates in which no weight could move: for most of the training the model stood "
        "still. A StepLR that was stepped per batch measured 0.79.",
    )


def evaluate(size: StepSize, metrics: TaskMetrics | None, limits: Limits) -> Problems:
    """Compare the fall of the learning rate with the limit, and say how long the model stood still."""
    if size.learning_rate <= 0 or size.highest_step <= _ROUNDING:
        return  # 0 is the end of many a schedule by design
    fallen = size.learning_rate / size.highest_rate
    if fallen >= limits.fallen:
        return
    moving = math.log(size.highest_step / _ROUNDING) / -math.log(fallen)
    if 1 - moving < limits.idle:
        return
    left = _harm.undone(metrics)
    harm = Severity.ERROR if (left or 0.0) > _harm.UNDONE else Severity.NOTE
    yield problem(
        Severity.WARNING if left is None else harm,
        f"The learning rate fell from {figure(size.highest_rate)} to {figure(size.learning_rate)}, and in "
        f"{percent(1 - moving)} of the {size.updates:,} updates it was too small to change a weight at all: "
        "its scheduler is meant for epochs and was stepped per batch, or its factor is too strong.",
        measured("fallen", fallen, limits.fallen),
        measured("idle", 1 - moving, limits.idle),
        measured("learning_rate", size.learning_rate),
        if_known("undone", left, _harm.UNDONE),
        confidence=Confidence.MEDIUM if left is None else Confidence.HIGH,
        decide_with="--data batch.npz" if left is None else "",
    )


VANISHED = StepSize.healthy(learning_rate=1e-26, highest_rate=2e-3, step=2.5e-26, highest_step=4.9e-3)

CHECK = Check(
    code="VQ406",
    name="learning-rate-vanished",
    evaluate=evaluate,
    limits=Limits(),
    scope="model",
    advice=Advice(
        name="step-per-epoch",
        how="Call the scheduler once an epoch, behind the loop over batches, and train from the start.",
        code="for epoch in range(epochs):\n    for b in loader:\n        step(b)\n    scheduler.step()",
    ),
    explained_by=("VQ901",),
    examples=(
        fires("StepLR(8, 0.6) stepped in each of 840 batches", VANISHED),
        fires(
            "the same, and half of the task is still to do: an error",
            VANISHED,
            TaskMetrics.healthy(accuracy=None, chance_accuracy=None, loss=0.42, mean_code_loss=0.9),
        ),
        fires(
            "the same, and the task is done all the same: a note",
            VANISHED,
            TaskMetrics.healthy(accuracy=None, chance_accuracy=None, loss=0.04, mean_code_loss=0.9),
        ),
        passes("healthy", StepSize.healthy(), TaskMetrics.healthy()),
        passes("a cosine at its end", StepSize.healthy(learning_rate=0.0, step=0.0)),
        passes(
            "a cosine one update before the end of 100,000",
            StepSize.healthy(learning_rate=2.5e-13, step=2.8e-12),
        ),
        passes(
            "four divisions by ten",
            StepSize.healthy(learning_rate=1e-7, step=1.1e-6),
        ),
        passes(
            "a base rate of 10, which small factors multiply, and which vanished late",
            StepSize.healthy(learning_rate=1e-16, highest_rate=10.0, step=1.6e-15, highest_step=160.0),
        ),
    ),
    doc=__doc__,
)
