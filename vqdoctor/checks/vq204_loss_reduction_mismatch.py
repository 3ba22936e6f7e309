"""The VQ loss is summed over the dimensions while the task loss is averaged.

## Why it matters
A sum over D dimensions is D times a mean, so a VQ loss that looks as if it had weight 1 has weight D. The
encoder serves it alone and goes to one code. The weight in the config looks right, which is why this is
found late: in the case below the cure was one word, and usage had been near 0.

## How to read it
The gradient of the VQ loss at z_e is compared with that of the mean of squares: the factor is beta for a
mean, beta times D for a sum over dimensions, beta times D times the number of vectors for a sum over all.
Where the gradient at z_e has another form, as before the first of several levels, the codebook's tells it.
A sum is right where the task loss is a sum as well; therefore the weighted pull of the VQ loss at z_e
must also reach the task's. Where both were reduced alike, trained autoencoders of digits measured a pull
of 0.13 to 0.64 of the task's; with a summed VQ loss and a mean task loss 0.96 to 2.5, up to 87 at the
start, and each collapsed to one code. A residual model of three levels with that mismatch pulled at 0.38 to
0.57 when it was trained, and its third level used a third of its codes: where beta is known or usage is poor,
such a sum is told as a note. At rest the two pulls come close to each other whatever the weight was: where
z_e has lost its directions and the task is badly done, the sum is an error at any pull; where it has lost
them and few codes are in use, a warning. The reverse, a summed
task loss beside a mean VQ loss, leaves the encoder without a hold and is judged by its signs (VQ202).

## Remedy
A sum over D dimensions counts D times as much as a mean. Either make the VQ loss a mean, or make the
reconstruction loss a sum over its own dimensions; both are the same up to the learning rate. Where the
sum must stay, divide the VQ weight by D.

## References
- EdoardoBotta/RQ-VAE-Recommender#65: a mean over 768 dimensions beside a summed commitment
"""

from vqdoctor.checks import _harm, _reduction, _usage
from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.checks._words import Problems, figure, measured, note, problem
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import Directions, LossBalance, LossTerms, TaskMetrics, Usage
from vqdoctor.core.levels import Confidence, Severity


class Limits(CheckLimits):
    """When a VQ loss counts as summed, and when the sum does harm."""

    factor: float = limit(
        _reduction.FACTOR,
        "Factor within which the weight at z_e must meet beta times D to count as a sum over dimensions. "
        "Single layers and residual levels meet it to 1 %; levels that are given the same z_e, for "
        "want of a subtraction, measured up to 1.8 times beta.",
    )
    beta_low: float = limit(
        _reduction.BETA_LOW,
        "Smallest beta that is assumed where beta is unknown. Below it a sum over D dimensions looks like a "
        "mean with a large weight.",
    )
    beta_high: float = limit(
        _reduction.BETA_HIGH,
        "Largest beta that is assumed where beta is unknown; published trainings use 0.1 to 2, nearly all of "
        "them 0.25 or 1.",
    )
    pull: float = limit(
        0.8,
        "Least ratio of the weighted VQ gradient and the task's at z_e at which a sum does harm. Trained "
        "models whose losses were reduced alike measured at most 0.64, mismatched ones at least 0.96.",
    )


def evaluate(
    terms: LossTerms,
    balance: LossBalance,
    usage: Usage | None,
    metrics: TaskMetrics | None,
    directions: Directions | None,
    limits: Limits,
) -> Problems:
    """Infer the reduction from the weight at z_e, then ask whether the VQ loss outweighs the task."""
    sum_over = _reduction.summed(terms, limits.factor, limits.beta_low, limits.beta_high)
    if sum_over is None:
        if terms.commitment is None:
            raise CannotJudge("the VQ loss is not a squared error between z_e and z_q")
        return
    what, size = sum_over
    if balance.ratio is None:
        raise CannotJudge(f"the VQ loss is summed over its {what}, but its weight in the training is unknown")
    measurements = (
        measured("pull", balance.ratio, limits.pull),
        measured("weight_as_a_mean", _reduction.weight_told(terms) or 0.0),
        measured("dimensions", terms.dim),
    )
    confidence = Confidence.HIGH if terms.beta else Confidence.MEDIUM
    poor = usage is not None and _usage.poor(usage)
    is_sum = f"The VQ loss is a sum over {size:,} {what}, so it weighs as much more than a mean"
    if balance.ratio > limits.pull:
        yield problem(
            _harm.severity(metrics, acts=_harm.outpulled(balance)),
            f"{is_sum}, and pulls {figure(balance.ratio)} times as hard at the encoder as the task does.",
            *measurements,
            confidence=confidence,
        )
    elif (ruined := _harm.narrowed(directions, metrics)) or (poor and _harm.is_narrow(directions)):
        yield problem(
            Severity.ERROR if ruined else Severity.WARNING,
            f"{is_sum}: by now it pulls {figure(balance.ratio)} times as hard at the encoder as the task "
            "does, and z_e is left with a handful of directions.",
            *measurements,
            confidence=confidence,
        )
    elif terms.beta or poor:
        yield note(
            f"{is_sum}: right only where the task loss is a sum as well"
            f"{', and the usage is poor here' if poor else ''}.",
            *measurements,
            confidence=confidence,
        )


CHECK = Check(
    code="VQ204",
    name="loss-reduction-mismatch",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="match-reductions",
        how="Average the VQ loss over the dimensions as the task loss is averaged, or sum both.",
        code="vq = F.mse_loss(z_e, z_q.detach())   # a mean, as in the task",
    ),
    meaningless_after=("VQ101", "VQ102"),
    examples=(
        fires(
            "summed over 64 dimensions beside a mean task loss",
            LossTerms.healthy(commitment=16.0, codebook=64.0),
            LossBalance.healthy(vq_weight=1.0, ratio=1.74),
        ),
        fires(
            "the same, and no beta recorded",
            LossTerms.healthy(commitment=16.0, codebook=64.0, beta=None, beta_from=""),
            LossBalance.healthy(vq_weight=1.0, ratio=35.0),
        ),
        fires(
            "a sum that pulls no harder by now, and poor usage",
            LossTerms.healthy(commitment=16.0, codebook=64.0),
            LossBalance.healthy(vq_weight=1.0, ratio=0.38),
            COLLAPSED_USAGE,
        ),
        fires(
            "a sum with beta on the codebook's term",
            LossTerms.healthy(commitment=64.0, codebook=16.0),
            LossBalance.healthy(vq_weight=1.0, ratio=8.6),
        ),
        fires(
            "a sum that pulls no harder than a mean: a note, since the task loss may be a sum",
            LossTerms.healthy(commitment=16.0, codebook=64.0),
            LossBalance.healthy(vq_weight=1.0, ratio=0.59),
        ),
        fires(
            "a sum at rest, to which z_e has lost its directions",
            LossTerms.healthy(commitment=16.0, codebook=64.0),
            LossBalance.healthy(vq_weight=1.0, ratio=0.41),
            Directions.healthy(vector_directions=1),
            COLLAPSED_USAGE,
        ),
        passes("both are means", LossTerms.healthy(), LossBalance.healthy()),
        passes(
            "a small sum whose beta is not known",
            LossTerms.healthy(commitment=16.0, codebook=64.0, beta=None, beta_from=""),
            LossBalance.healthy(vq_weight=1.0, ratio=0.59),
        ),
        passes(
            "a mean of heavy weight", LossTerms.healthy(), LossBalance.healthy(vq_weight=100.0, ratio=72.7)
        ),
        passes(
            "no beta recorded, and a weight too small for a sum",
            LossTerms.healthy(commitment=1.0, beta=None, beta_from="", dim=4),
            LossBalance.healthy(vq_weight=1.0, ratio=1.5),
        ),
    ),
    doc=__doc__,
)
