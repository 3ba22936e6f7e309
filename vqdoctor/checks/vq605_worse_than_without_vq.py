"""The model does its task far worse with its codes than with the vectors that they replace.

## Why it matters
Then z_e holds the information that the task needs, and quantizing throws it away. The encoder has learned
the task, and the codebook loses the answer.

## How to read it
The skill (accuracy above chance) that is lost when the codes are used, as a share of the skill with z_e
passed on as it is. That is only a proxy of a model without VQ: the rest of the model was trained on
codes, so it may do worse on z_e, and a small gap, or none, is not a proof. A large gap is one. For the
real baseline train the same model without the VQ layer. Losses are not compared: a reconstruction is
always closer without quantizing.

## Remedy
This is the last step: a larger codebook is of no use while the present one is not in use, so fix the
causes first. Residual levels add the most for their cost: Q levels of K codes have K to the power of Q
combinations. Train the same model once without the VQ layer, to know what there is to gain.

## References
- Measured: with healthy codes a digit model reached accuracy 0.957 to 0.967, without VQ 0.965
"""

from vqdoctor.checks import _harm
from vqdoctor.checks._causes import COLLAPSE
from vqdoctor.checks._words import Problems, figure, measured, warning
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import TaskMetrics
from vqdoctor.core.levels import Confidence
from vqdoctor.core.skill import LOST


class Limits(CheckLimits):
    """How much may be lost, and how much there must be to lose."""

    lost_share: float = limit(
        LOST,
        "Largest share of the skill with z_e that may be lost with the codes. Healthy digit models lost "
        "at most 0.006, one whose codes had collapsed to a perplexity of 11 0.03; a classifier of sequences "
        "lost 0.15 with 16 codes and 0.44 with 8.",
    )
    skill: float = limit(
        0.2, "Least accuracy above chance with z_e, over its largest possible value, for anything to be lost."
    )
    errors: float = limit(
        _harm.ERRORS,
        "Least size of the gap in standard errors of a difference of two accuracies on this sample.",
    )


def evaluate(metrics: TaskMetrics, limits: Limits) -> Problems:
    """Compare the accuracy with the codes and with z_e."""
    with_codes, without, chance = metrics.accuracy, metrics.bypass_accuracy, metrics.chance_accuracy
    if with_codes is None or without is None or chance is None:
        raise CannotJudge("there is no accuracy, and a loss is always smaller without quantizing")
    skill = without - chance
    if skill <= 0 or skill < limits.skill * (1 - chance):
        raise CannotJudge("the model does no better than chance on z_e either, so there is no baseline")
    gap = without - with_codes
    if gap > limits.lost_share * skill and _harm.is_gap(metrics, limits.errors):
        yield warning(
            f"Accuracy is {figure(with_codes)} with the codes and {figure(without)} with the "
            "encoder's outputs in their place: quantizing throws away what the task needs.",
            measured("lost_share", gap / skill, limits.lost_share),
            measured("accuracy", with_codes),
            measured("bypass_accuracy", without),
            confidence=Confidence.MEDIUM,
        )


CHECK = Check(
    code="VQ605",
    name="worse-than-without-vq",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="more-capacity",
        how="Use more codes, more positions, or a second residual level, and compare with the same model "
        "trained without the VQ layer.",
        code="first = vq_1(z_e)\nz_q = first + vq_2(z_e - first.detach())   # a second level",
    ),
    explained_by=(*COLLAPSE, "VQ407", "VQ501", "VQ502", "VQ503"),
    examples=(
        fires("the encoder knows, the codes fail", TaskMetrics.healthy(accuracy=0.31, bypass_accuracy=0.93)),
        passes("healthy", TaskMetrics.healthy()),
        passes("better with codes than with z_e", TaskMetrics.healthy(accuracy=0.947, bypass_accuracy=0.62)),
        passes(
            "a gap that 20 samples cannot tell from luck",
            TaskMetrics.healthy(accuracy=0.5, bypass_accuracy=0.7, sample_size=20),
        ),
    ),
    doc=__doc__,
)
