"""The encoder gets no gradient through the VQ layer.

## Why it matters
Choosing the nearest code is a step function: its gradient is zero. Without an estimator the task cannot
tell the encoder anything, the VQ loss alone moves it, and it ends where that loss is least: every input
on one code. This is the most frequent cause of a collapse to perplexity 1, and no other remedy helps
while it lasts.

## How to read it
With a model and data: a random gradient is sent into z_q, and compared with the gradient that arrives at z_e.
A straight-through estimator passes it unchanged (ratio 1). The rotation trick, cosine codes, FSQ and residual
layers pass between 0.13 and several times the length, and all of these are right. A missing estimator passes
exactly 0, which is the proof. So does one the wrong way round, `z_q + (z_e - z_q).detach()`, and its output
is z_e: the decoder then never gets a code. A little is a warning, because small projections around the codes
scale the gradient too, and Adam makes up for a scale. So is a gradient that most vectors lack; where the
layer keeps a temperature under 0.1, and at 1 they get it, that is the cause: soft draws have become choices.
Without a model: the optimizer remembers how large the gradients were before and after the VQ layer. On 8x8
digits their ratio was 0.001 to 0.018 with a cut encoder, 0.33 to 0.54 in health, and never under 0.69 with
any other fault. This is circumstantial evidence, hence the medium confidence. A file has the order in which
the modules were registered, which need not be that of the data: where it contradicts the names (encoder,
decoder), the names decide and the confidence is low. A VQ loss with a large weight also moves a cut encoder
and can hide the cut here; data cannot be deceived. Where the EMA writes codes on another scale than the
vectors (VQ309, VQ310), the decoder's gradients are huge whatever the estimator, and the memory is not asked.
Nor is it where codes are so large that their size explains the ratio: a weight behind the layer has a
gradient in proportion to the codes. Cut encoders have small codes, since the VQ loss alone moves them (a root
mean square of 0.0002 was measured). Where the learning rate was so small, or the steps so few, that no weight
can have moved by its own size, the memory is that of an untrained model, and is not asked. Nor is it where
the optimizer never had a gradient of an encoder that was trained all the same: a pretrained one that is
frozen.

## Remedy
straight-through: `z_q = z_e + (z_q - z_e).detach()`, after the VQ losses, as the last step.

## References
- van den Oord et al. 2017, Neural Discrete Representation Learning, arXiv:1711.00937
- Bengio et al. 2013, Estimating or Propagating Gradients, arXiv:1308.3432
- Fifty et al. 2024, the rotation trick, arXiv:2410.06424
- yangdongchao/RSTnet#2: every file became one index; "forgot to add the gradient copy operation"
"""

from collections.abc import Iterator
from functools import partial

from vqdoctor.checks import _levels, _scale
from vqdoctor.checks._words import figure, measured, percent, problem
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import (
    CodebookGeometry,
    EmaRelation,
    EncoderStart,
    GradientPath,
    ImplicitLevels,
    OptimizerMemory,
    StepSize,
    TaskGradient,
)
from vqdoctor.core.finding import Problem
from vqdoctor.core.levels import Confidence, Severity

WARMER = "raise-temperature"
_missing = partial(problem, remedies=("straight-through",))


class Limits(CheckLimits):
    """When the encoder counts as cut off."""

    gradient_ratio: float = limit(
        0.001,
        "Least share of a gradient at z_q that must arrive at z_e, where anything does. The weakest trained "
        "estimator measured (four residual levels) passes 0.13, a small DAC model as it is built 0.005; a "
        "missing one passes exactly 0, and is an error whatever the limit.",
    )
    zero_share: float = limit(
        0.5,
        "Largest share of vectors that may get no gradient at all. Every legitimate estimator measured "
        "leaves out none; masked padding may leave out some.",
    )
    moment_ratio: float = limit(
        0.05,
        "Least ratio of the optimizer's gradient memory before and after the VQ layer. Cut encoders "
        "measured 0.001 to 0.018, healthy ones at least 0.33, other faults at least 0.69.",
    )
    travel: float = limit(
        1.0,
        "Least way that Adam's steps can have moved a weight, over its size, for the memory to be that of a "
        "trained model: the updates times the largest step. At 1 a weight can just have moved by its own "
        "size, which is a bound and no measurement.",
    )
    drawn: float = limit(
        0.9,
        "Least share of the encoder's weights that must be as drawn where the optimizer never had a gradient "
        "of any: as VQ111. An encoder that was moved without one was trained before, and is frozen.",
    )


def evaluate(
    gradient: GradientPath | None,
    memory: OptimizerMemory | None,
    levels: ImplicitLevels | None,
    relation: EmaRelation | None,
    geometry: CodebookGeometry | None,
    task: TaskGradient | None,
    steps: StepSize | None,
    start: EncoderStart | None,
    limits: Limits,
) -> Iterator[Problem]:
    """Ask the live gradient; only where no model was run, the optimizer's memory."""
    if gradient is not None and gradient.estimator != "none" and _levels.are_saturated(levels):
        raise CannotJudge(
            "the channels are saturated: there a tanh passes no gradient, whatever the estimator"
        )
    if gradient is not None:
        yield from _live(gradient, limits)
    elif task is not None:
        raise CannotJudge("the estimator is outside of the layer, where the task's gradient shows it (VQ102)")
    elif memory is not None and memory.ratio is not None:
        if _scale.broken(relation):
            raise CannotJudge(
                "the codes are on another scale than the vectors, so that large gradients behind the VQ "
                "layer prove no cut"
            )
        if steps is not None and steps.updates * steps.highest_step < limits.travel:
            raise CannotJudge(
                f"{steps.updates:,} updates at a learning rate of {figure(steps.highest_rate)} cannot have "
                "moved a weight by its own size, and the gradients of an untrained model prove no cut"
            )
        if memory.before_gradient == 0 and start is not None and start.before_drawn < limits.drawn:
            raise CannotJudge(
                "the optimizer never had a gradient of the encoder, whose weights are not as drawn: it may "
                "be a pretrained one that is frozen"
            )
        size = 1.0 if geometry is None else max(1.0, geometry.norm_median / geometry.dim**0.5)
        if memory.ratio < limits.moment_ratio <= memory.ratio * size:
            raise CannotJudge(
                f"the codes are of size {figure(size)}, and gradients behind the VQ layer are as many times "
                "as large, so that they prove no cut"
            )
        if memory.ratio < limits.moment_ratio:
            yield _missing(
                Severity.ERROR,
                f"The encoder's remembered gradients are only {figure(memory.ratio)} times those behind the "
                "VQ layer: the task's gradient does not reach the encoder, usually because the "
                "straight-through estimator is missing.",
                measured("moment_ratio", memory.ratio, limits.moment_ratio),
                confidence=Confidence.LOW if memory.contradicted else Confidence.MEDIUM,
                decide_with="--data batch.npz",
            )
    else:
        raise CannotJudge("neither a live gradient nor the optimizer's memory of one is at hand")


def _live(gradient: GradientPath, limits: Limits) -> Iterator[Problem]:
    ratio = measured("gradient_ratio", gradient.ratio, limits.gradient_ratio)
    if gradient.estimator in ("none", "zero"):
        why = (
            "it puts out z_e and not codes, so its straight-through estimator is the wrong way round: the "
            "decoder gets no codes, and the task cannot train the encoder."
            if gradient.puts_out_z_e
            else "the straight-through estimator is missing, so the task cannot train the encoder."
        )
        yield _missing(
            Severity.ERROR,
            f"The VQ layer passes {percent(gradient.ratio)} of the gradient back to the encoder: {why}",
            ratio,
        )
    elif gradient.ratio < limits.gradient_ratio:
        yield _missing(
            Severity.WARNING,
            f"The VQ layer passes only {percent(gradient.ratio)} of the gradient back to the "
            "encoder: its estimator is scaled down, or the projections around the codes are tiny.",
            ratio,
            confidence=Confidence.MEDIUM,
        )
    elif gradient.zero_share > limits.zero_share >= (gradient.zero_share_at_one or 0.0) and (
        gradient.temperature is not None
    ):
        yield problem(
            Severity.WARNING,
            f"The VQ layer passes no gradient back for {percent(gradient.zero_share)} of the vectors at its "
            f"{gradient.temperature_name} of {figure(gradient.temperature)}, and at 1 for "
            f"{percent(gradient.zero_share_at_one or 0.0)}: its temperature makes soft draws single choices.",
            measured("zero_share", gradient.zero_share, limits.zero_share),
            measured("temperature", gradient.temperature),
            measured("zero_share_at_one", gradient.zero_share_at_one or 0.0, limits.zero_share),
            remedies=(WARMER,),
        )
    elif gradient.zero_share > limits.zero_share:
        yield _missing(
            Severity.WARNING,
            f"The VQ layer passes no gradient back for {percent(gradient.zero_share)} of the vectors.",
            measured("zero_share", gradient.zero_share, limits.zero_share),
            ratio,
        )


CHECK = Check(
    code="VQ101",
    name="straight-through-missing",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("straight-through",),
    other_advice=(
        Advice(
            name=WARMER,
            how="Let the temperature fall slowly, once per epoch and not per step, and stop at about 0.5.",
            code="tau = max(0.5, 0.95 ** epoch)\nsoft = F.gumbel_softmax(logits, tau=tau)",
        ),
    ),
    examples=(
        fires(
            "z_q is detached and nothing is added",
            GradientPath.healthy(estimator="none", ratio=0.0, cosine=None, zero_share=1.0, worst_gain=0.0),
        ),
        fires(
            "the estimator is the wrong way round",
            GradientPath.healthy(
                estimator="none", ratio=0.0, cosine=None, zero_share=1.0, worst_gain=0.0, puts_out_z_e=True
            ),
        ),
        fires(
            "a bare file whose optimizer hardly saw the encoder",
            OptimizerMemory.healthy(before_gradient=4.6e-6, after_gradient=3.1e-3, ratio=0.0015),
            StepSize.healthy(),
        ),
        fires(
            "the same, where only the names say what the encoder is",
            OptimizerMemory.healthy(before_gradient=0.0, after_gradient=3.1e-3, ratio=0.0, contradicted=True),
        ),
        fires(
            "an encoder that never had a gradient, and is as drawn",
            OptimizerMemory.healthy(before_gradient=0.0, after_gradient=3.1e-3, ratio=0.0),
            EncoderStart.healthy(before_drawn=0.95),
        ),
        fires(
            "levels that are rounded without an estimator",
            GradientPath.healthy(estimator="zero", ratio=0.0, cosine=None, zero_share=1.0, worst_gain=0.0),
            ImplicitLevels.healthy(),
        ),
        fires(
            "an estimator that is scaled down to next to nothing",
            GradientPath.healthy(estimator="custom", ratio=1e-5, worst_gain=2e-5),
        ),
        fires(
            "a Gumbel layer whose temperature has fallen to 0.001",
            GradientPath.healthy(
                estimator="custom",
                cosine=None,
                zero_share=0.97,
                temperature_name="tau",
                temperature=0.001,
                zero_share_at_one=0.0,
            ),
        ),
        passes(
            "DAC as it is built: small projections around the codes",
            GradientPath.healthy(estimator="custom", ratio=0.005, cosine=0.1, worst_gain=0.01),
        ),
        passes("straight-through estimator", GradientPath.healthy()),
        passes(
            "four residual levels with cosine codes",
            GradientPath.healthy(estimator="custom", ratio=0.13, cosine=0.99, worst_gain=0.4),
        ),
        passes(
            "fixed after the file was written", GradientPath.healthy(), OptimizerMemory.healthy(ratio=0.0015)
        ),
    ),
    doc=__doc__,
)
