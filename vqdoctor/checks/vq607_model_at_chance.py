"""The model does no better than chance: the file records it, or data shows it.

## Why it matters
A codebook may look well used while the model has learned nothing. Training scripts save their own figures
with the model, and these say it without any data: nobody should call such a model healthy.

## How to read it
With C classes, chance is an accuracy of 1/C and a cross-entropy of ln C. The best recorded accuracy and the
least cross-entropy are compared with these. C comes from a setting (num_classes) or from the shape of the
model's head, and never from a number that resembles ln C. Figures are taken by their names (val_acc,
best_accuracy, cross_entropy, a callback's best score, `trainer_state.json` beside the file). A recorded VQ
loss that grows many times over is the other sign: the codes do not follow the encoder. The message says what
was read, and where. It is the file's word and was not measured, hence the medium confidence.

Accuracy that was measured on data outranks the record. It counts where the model is at chance both with the
VQ layer and with z_e in place of z_q; where it is better without, VQ605 tells it. Chance is then the share
of the most frequent label. A model that finds a rare event may be right less often than that, and passes:
there each class counts alike (balanced accuracy, at the lower end of its interval). It is an error where
the sample is large enough to rule out any skill worth the name.

## Remedy
begin-with-the-task: train the same model without the VQ layer. If it does no better, the task, the labels or
the encoder are at fault, and no remedy of a codebook helps.

## References
- Measured: a motion-sensor model recorded accuracy 0.094 and a loss of 2.486 = ln 12 over 12 classes
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from vqdoctor.checks._causes import COLLAPSE
from vqdoctor.checks._words import figure, measured, problem
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, NoEvidence, fires, limit, passes
from vqdoctor.core.evidence import RecordedScores, TaskMetrics
from vqdoctor.core.finding import Measurement, Problem
from vqdoctor.core.levels import Confidence, Severity


class Limits(CheckLimits):
    """How near to chance is no better than chance."""

    times_chance: float = limit(
        1.5,
        "Least accuracy in units of 1/C. Models that had learned nothing recorded 1.1, trained ones 5 and "
        "more.",
    )
    skill: float = limit(
        0.05,
        "Least accuracy above chance, over its largest possible value: for two classes 1.5 times chance "
        "would be 0.75. The most frequent class alone often gives more than 1/C.",
    )
    known: float = limit(
        0.1,
        "Least skill at the upper end of the measured accuracy's 95 % interval that leaves open whether the "
        "model has learned something. Healthy small models measured a skill of 0.3 and more.",
    )
    entropy_gap: float = limit(
        0.02,
        "Least distance of the cross-entropy from ln C, as a share of ln C. A head that has learned only how "
        "frequent each class is stays within it where classes are balanced.",
    )
    vq_loss_rise: float = limit(
        100.0,
        "Largest growth of the recorded VQ loss, last quarter over first. Sound trainings of 12 epochs "
        "measured up to 6, codes on a sphere beside vectors that grow 12,000.",
    )


def evaluate(scores: RecordedScores | None, metrics: TaskMetrics | None, limits: Limits) -> Iterator[Problem]:
    """Ask the measured accuracy; then the recorded one, the cross-entropy, and the course of the VQ loss."""
    if scores is not None and scores.updates == 0:
        raise CannotJudge("the file records that no update was made yet")
    if metrics is not None and metrics.accuracy is not None:
        yield from _measured(metrics, limits)
        return
    if scores is None:
        raise NoEvidence("no evidence of kind recorded-scores")
    known = scores.classes is not None and (scores.accuracy is not None or scores.cross_entropy is not None)
    if not known and scores.vq_loss_rise is None:
        raise CannotJudge("the file records no figure of the task together with its number of classes")
    told = list(_at_chance(scores, limits))
    if told:
        yield told[0]
    elif scores.vq_loss_rise is not None and scores.vq_loss_rise > limits.vq_loss_rise:
        yield _warning(
            f"The file records a VQ loss that grew {figure(scores.vq_loss_rise)} times "
            f"({scores.where('vq_loss_rise')}): the codes do not follow the encoder.",
            *(measured("vq_loss_rise", scores.vq_loss_rise, limits.vq_loss_rise),),
        )


def _measured(metrics: TaskMetrics, limits: Limits) -> Iterator[Problem]:
    """Fire where neither z_q nor z_e does better than the most frequent label."""
    found, bypass, chance = metrics.accuracy, metrics.bypass_accuracy, metrics.chance_accuracy
    if found is None or bypass is None or chance is None or chance >= 1:
        raise CannotJudge("the accuracy without the VQ layer was not measured")
    best = max(found, bypass)
    skill = (best - chance) / (1 - chance)
    knows_each = (metrics.balanced_skill or 0.0) >= limits.skill
    if skill < limits.skill and not knows_each:
        at_most = skill + 1.96 * math.sqrt(chance / (1 - chance) / max(metrics.sample_size, 1))
        yield problem(
            Severity.ERROR if at_most < limits.known else Severity.WARNING,
            f"On {metrics.sample_size:,} samples of the split {metrics.split} the accuracy is "
            f"{figure(found)}, without the VQ layer {figure(bypass)}, and the most frequent label alone "
            f"gives {figure(chance)}: the model has learned nothing of its task.",
            measured("skill", skill, limits.skill),
            measured("skill_high", at_most, limits.known),
            confidence=Confidence.HIGH,
        )


def _at_chance(scores: RecordedScores, limits: Limits) -> Iterator[Problem]:
    if scores.classes is None:
        return
    classes, chance = f"{scores.classes:,} classes ({scores.where('classes')})", 1 / scores.classes
    if scores.accuracy is not None:
        skill = (scores.accuracy - chance) / (1 - chance)
        if scores.accuracy < limits.times_chance * chance and skill < limits.skill:
            yield _warning(
                f"The file records accuracy {figure(scores.accuracy)} ({scores.where('accuracy')}), and "
                f"chance is {figure(chance)} with {classes}: the model has learned nothing of its task.",
                measured("times_chance", scores.accuracy / chance, limits.times_chance),
                measured("skill", skill, limits.skill),
            )
    elif scores.cross_entropy is not None:
        gap = abs(scores.cross_entropy / math.log(scores.classes) - 1)
        if gap < limits.entropy_gap:
            yield _warning(
                f"The file records cross-entropy {figure(scores.cross_entropy)} "
                f"({scores.where('cross_entropy')}), which is that of a guess among {classes}: the model has "
                "learned nothing of its task.",
                measured("entropy_gap", gap, limits.entropy_gap),
                measured("cross_entropy", scores.cross_entropy),
            )


def _warning(message: str, *measurements: Measurement) -> Problem:
    return problem(
        Severity.WARNING,
        message,
        *measurements,
        confidence=Confidence.MEDIUM,
        decide_with="--data batch.npz",
    )


CHECK = Check(
    code="VQ607",
    name="model-at-chance",
    evaluate=evaluate,
    limits=Limits(),
    scope="model",
    advice=Advice(
        name="begin-with-the-task",
        how="Train the same model once without the VQ layer, and add the layer when that one learns "
        "the task.",
        code="z_q, vq_loss = z_e, 0.0   # in place of vq(z_e)",
    ),
    explained_by=COLLAPSE,
    examples=(
        fires("accuracy 0.094 over 12 classes", RecordedScores.healthy(accuracy=0.094, classes=12)),
        fires(
            "a cross-entropy of ln 12",
            RecordedScores.healthy(accuracy=None, cross_entropy=2.486, classes=12),
        ),
        fires(
            "measured at chance, with the VQ layer and without",
            TaskMetrics.healthy(accuracy=0.11, bypass_accuracy=0.12, chance_accuracy=0.11),
        ),
        passes(
            "a file that says chance, beside data that says the contrary",
            RecordedScores.healthy(accuracy=0.094, classes=12),
            TaskMetrics.healthy(),
        ),
        passes(
            "at chance with the VQ layer alone, which VQ605 tells",
            TaskMetrics.healthy(accuracy=0.11, bypass_accuracy=0.93, chance_accuracy=0.11),
        ),
        fires("a VQ loss that explodes", RecordedScores.healthy(vq_loss_rise=2e5)),
        fires("two classes, accuracy 0.51", RecordedScores.healthy(accuracy=0.51, classes=2)),
        passes("healthy", RecordedScores.healthy()),
        passes("1,000 classes, accuracy 0.01", RecordedScores.healthy(accuracy=0.01, classes=1_000)),
        passes(
            "a loss of 2.3 beside an accuracy that knows the task",
            RecordedScores.healthy(accuracy=0.8, cross_entropy=2.3026),
        ),
    ),
    doc=__doc__,
)
