"""The training batches come in an order: neighbouring ones hold the same kind of sample.

## Why it matters
Codes move only when they are chosen. While a hundred batches in a row hold one class, or one recording,
its codes follow the encoder and all others are left behind, dead by the time their samples come again;
the encoder forgets likewise. A loader that had lost its `shuffle=True` was the cause of a collapse to
one code.

## How to read it
The correlation between the samples of neighbouring batches, of their labels and of their codes: 0 in a
random order, 1 where runs of batches hold one kind. Measured on digits (K = 256, 20 epochs, accuracy 0.952
shuffled; with and without revival, decay 0.99 and 0.8): 0.09 cost 1 to 4 points, 0.25 cost 4 to 14, 0.49
cost 6 to 25, and sorted data ended at 0.10 to 0.36. A permutation test says whether it is more than chance;
an order that is certain but of small effect is a note.
Batches that are alike within but come in a random order, as some samplers make them on purpose, are not
meant: 0.25 of that left the accuracy at 0.957 or more. Two passes may come in the same order.
It is an error where the codes cost the task, or where most of the task is still to do: the encoder forgets
with its codes, so that z_e in their place does no better. Then the codes lie where the last kind of sample
was, and a codebook far from the data is its symptom.
Where the task's `batches("train")` is not the loader that trained the model, the result does not hold for
the training.

## Remedy
A map-style data set needs only `shuffle=True`; with several processes, a DistributedSampler whose
`set_epoch` is called. A stream of files needs a shuffle buffer that is larger than a file, and the
files themselves in random order, or it only mixes neighbours.

## References
- LatentActionPretraining/LAPA#17: the shuffle of the DataLoader was commented out
"""

from vqdoctor.checks import _harm
from vqdoctor.checks._words import Problems, figure, measured, problem
from vqdoctor.core.check import Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import BatchMixing, TaskMetrics
from vqdoctor.core.levels import Confidence, Severity

FORGOTTEN = ("VQ301", "VQ607", "VQ501", "VQ502")
"""Findings on a codebook of which the last kind alone is in use, far from all other vectors."""


class Limits(CheckLimits):
    """When the order counts as not random."""

    drift: float = limit(
        0.2,
        "Largest correlation between the samples of neighbouring batches. 0.09 cost one to four points of "
        "accuracy, 0.25 four to fourteen.",
    )
    in_order: float = limit(
        0.5,
        "Least correlation at which a model that has failed has forgotten the kinds of earlier batches, and "
        "its codes lie where the last ones were. 0.49 cost up to 25 points, sorted data nearly all.",
    )
    proven: float = limit(
        0.02,
        "Largest correlation that is not worth a note, however certain it is: with 5,000 samples five "
        "standard deviations are a correlation of 0.01.",
    )
    z: float = limit(
        5.0,
        "Least distance from random orders, in their standard deviations. Five are beyond what chance gives "
        "in any number of examinations.",
    )


def evaluate(mixing: BatchMixing, metrics: TaskMetrics | None, limits: Limits) -> Problems:
    """Compare the drift of labels and of codes with the limits; the larger one makes the sentence."""
    drifts = [
        (drift, z, what)
        for drift, z, what in (
            (mixing.label_drift, mixing.label_z, "label"),
            (mixing.code_drift, mixing.code_z, "code"),
        )
        if drift is not None and z is not None and drift > limits.proven and z > limits.z
    ]
    if drifts:
        drift, z, what = max(drifts)
        forgot = (_harm.undone(metrics) or 0.0) > _harm.FAILS  # the encoder too, so z_e is no better
        in_order = drift >= limits.in_order
        ruined = forgot or (in_order and _harm.unlearned(metrics))
        severity = Severity.ERROR if ruined else _harm.severity(metrics)
        yield problem(
            severity if drift > limits.drift else Severity.NOTE,
            f"The {what}s of neighbouring training batches correlate with {figure(drift)}, where a random "
            f"order gives 0 ({mixing.batches} batches of {mixing.batch_size}): the loader does not shuffle.",
            measured(f"{what}_drift", drift, limits.drift),
            measured(f"{what}_z", z, limits.z),
            confidence=Confidence.MEDIUM,
            explains=FORGOTTEN if forgot and in_order else (),
        )


CHECK = Check(
    code="VQ403",
    name="unshuffled-loader",
    evaluate=evaluate,
    limits=Limits(),
    scope="model",
    remedies=("shuffle",),
    examples=(
        fires("sorted", BatchMixing.healthy(label_drift=0.97, label_z=210.0, code_drift=0.3, code_z=150.0)),
        fires(
            "consecutive chunks of one recording, no labels",
            BatchMixing.healthy(label_drift=None, label_z=None, code_drift=0.41, code_z=90.0),
        ),
        fires(
            "sorted, and the codes cost the task: an error",
            BatchMixing.healthy(label_drift=0.97, label_z=210.0),
            TaskMetrics.healthy(accuracy=0.31, bypass_accuracy=0.83),
        ),
        fires(
            "sorted, and the encoder has forgotten too: an error",
            BatchMixing.healthy(label_drift=0.97, label_z=210.0),
            TaskMetrics.healthy(accuracy=0.26, bypass_accuracy=0.33, chance_accuracy=0.19),
        ),
        fires("a small drift for certain: a note", BatchMixing.healthy(label_drift=0.09, label_z=41.0)),
        passes("a random order", BatchMixing.healthy()),
        passes(
            "a large drift in too few batches to tell",
            BatchMixing.healthy(batches=16, batch_size=1, label_drift=0.3, label_z=2.9),
        ),
    ),
    doc=__doc__,
)
