"""The learning rate is too high: one step of Adam moves a weight by as much as it should be large.

## Why it matters
Adam moves every weight by about the learning rate, however small the gradient. Where that is about the
size that weights have, each step makes another model of it: the loss stays at chance or far above, ReLUs
leave their range and never come back, z_e runs away from the codes or becomes constant, and the
codebook collapses behind it. No remedy of a codebook helps.

## How to read it
A layer with f inputs starts with weights of about 1/sqrt(f). A step of Adam changes its output by the
learning rate times sqrt(f) of its size, even where the signs of the moves are independent; the median over
the matrices in the file's optimizer is compared with the limit. Where a schedule has lowered the rate since,
its start or peak counts if the weights have grown many times over too. SGD and optimizers that find their own
rate (Lamb, Adafactor, Prodigy) are not judged: their steps have no such size. It is an error where the task
loss is no better than with one code everywhere, or the weights have grown. Where the file has no optimizer,
the task's own tells the rate, and counts beside such a sign alone.

## Remedy
lower-learning-rate: divide it by 10 until the loss falls from the first steps on, and start afresh: dead
units and weights that have run away do not come back.

## References
- Kingma & Ba 2015, Adam, arXiv:1412.6980, section 2.1: a step is bounded by the learning rate
- LeCun et al. 1998, Efficient BackProp, section 4.6: weights of 1/sqrt(f) keep a signal's size
"""

from vqdoctor.checks._words import Problems, figure, if_known, measured, problem
from vqdoctor.core.check import Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import StepSize, TaskMetrics
from vqdoctor.core.levels import Confidence, Severity


class Limits(CheckLimits):
    """When a step counts as too large, and weights as run away."""

    step: float = limit(
        0.3,
        "Least share of a layer's output that one step changes. Four quantizers on digits trained as well at "
        "0.17 as at 0.01 (loss at most 1.3 times as high); at 0.57 their loss was 3 to 31 times as high, at "
        "1.7 they learned nothing.",
    )
    growth: float = limit(
        4.0,
        "Least size of the weights, in units of 1/sqrt(f), that counts as run away. Trained models measured "
        "0.5 to 2.4, those at a step of 1.7 5 to 6.",
    )


def evaluate(size: StepSize, metrics: TaskMetrics | None, limits: Limits) -> Problems:
    """Compare a step with the weights; the weights' growth and the task loss say how much harm was done."""
    grown = size.growth is not None and size.growth >= limits.growth
    now = size.step >= limits.step
    if not now and not (grown and size.highest_step >= limits.step):
        return
    useless = metrics is not None and metrics.loss >= metrics.mean_code_loss
    if size.source == "batch" and not (grown or useless):
        return  # the task's word for it, and no sign that such steps were taken
    rate, step = (size.learning_rate, size.step) if now else (size.highest_rate, size.highest_step)
    when = "is" if now else "was, at the highest,"
    yield problem(
        Severity.ERROR if grown or useless else Severity.WARNING,
        f"The learning rate {when} {figure(rate)}: one step of Adam moves every weight by about that much, "
        f"which changes a layer's output by {figure(step)} times its size.",
        measured("step", step, limits.step),
        measured("learning_rate", rate),
        if_known("growth", size.growth, limits.growth),
        confidence=Confidence.HIGH if grown and now else Confidence.MEDIUM,
    )


CHECK = Check(
    code="VQ404",
    name="learning-rate-too-high",
    evaluate=evaluate,
    limits=Limits(),
    scope="model",
    remedies=("lower-learning-rate",),
    examples=(
        fires(
            "Adam at 0.3, weights that have run away",
            StepSize.healthy(learning_rate=0.3, highest_rate=0.3, step=5.1, highest_step=5.1, growth=20.6),
        ),
        fires(
            "Adam at 0.1, and the task loss is that of one code",
            StepSize.healthy(learning_rate=0.1, highest_rate=0.1, step=0.57, highest_step=0.57, growth=1.7),
            TaskMetrics.healthy(loss=2.6, mean_code_loss=2.6),
        ),
        fires(
            "a schedule has come down from 0.3",
            StepSize.healthy(learning_rate=1e-5, highest_rate=0.3, step=2e-4, highest_step=5.1, growth=12.0),
        ),
        passes("healthy", StepSize.healthy(), TaskMetrics.healthy()),
        passes(
            "a schedule that multiplies a base rate of 1 by small factors",
            StepSize.healthy(learning_rate=1e-4, highest_rate=1.0, step=2e-3, highest_step=16.0),
        ),
    ),
    doc=__doc__,
)
