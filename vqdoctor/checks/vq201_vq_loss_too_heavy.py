"""The VQ loss outweighs the task.

## Why it matters
The VQ loss is smallest when every z_e lies on one code. With too large a weight the encoder goes
there: the VQ loss falls to zero, the task loss stays where it was, and the codebook collapses.

## How to read it
With data: the gradient of the weighted VQ loss at z_e against that of the task loss. Above 10 the
encoder serves the VQ loss. The ratio is only large while the encoder is being pulled: after a
collapse it comes back to about 1 (0.9 was measured at weight 100), so the weight counts beside it.
Without data: the weight that the file records. A weight that is not recorded is unknown, not 1. A commitment
weight that the layer itself says counts where its gradient at z_e has that size, times the VQ loss's weight.
The weight alone is a warning, since a codebook that was initialised from data can bear it: on 8x8
digits weight 100 collapsed an N(0,1) codebook to perplexity 1 and left a data-initialised one alive.
A symptom, such as a collapsed codebook, makes it an error, and so does a task that loses a fifth of its
success with the codes in place of z_e. Bypassing the codes shows no harm that the encoder took: where the VQ
loss still pulls harder than the task (above 1), it is an error too, unless the model is right in 95 % of all
cases. Noise in front of the layer makes the VQ loss larger in training than it is (VQ606). A batch norm whose
running statistics lag behind leaves it as it is, and may be a second trouble beside the weight. Codes of a
wrong length make it explode (VQ309, VQ310), so its pull is not judged there. The loss of a layer without a
codebook (LFQ, BSQ) rewards variety, and is not judged: on 8x8 digits LFQ used 44 of its 64 codes where it
pulled 38 times as hard as the task, and 4 at a tenth of that weight.

## Remedy
lower-vq-weight: `loss = task + 0.1 * vq`. warm-up: let the weight grow over the first 10 epochs.

## References
- van den Oord et al. 2017, arXiv:1711.00937: results hardly change for beta between 0.1 and 2
- EdoardoBotta/RQ-VAE-Recommender#65: the task loss was a mean over 768 dimensions, the VQ loss a sum
- jishengpeng/WavTokenizer#36: commitment weight 1000
"""

from vqdoctor.checks import _harm, _reduction, _scale
from vqdoctor.checks._words import Problems, figure, if_known, measured, problem
from vqdoctor.core.check import CannotJudge, Check, CheckLimits, NoEvidence, fires, limit, passes
from vqdoctor.core.evidence import (
    CodebookGradient,
    EmaRelation,
    LossBalance,
    LossTerms,
    OptimizerMemory,
    TaskMetrics,
    TrainingRecord,
    Usage,
)
from vqdoctor.core.levels import Confidence


class Limits(CheckLimits):
    """When the VQ loss counts as too heavy."""

    gradient_ratio: float = limit(
        10.0,
        "Largest ratio of the weighted VQ loss's gradient and the task's at z_e. Ten to one leaves the "
        "task under a tenth of the pull; trained digit models measured 0.004 at weight 0.1 and 0.02 at 1.",
    )
    weight: float = limit(
        10.0,
        "Largest weight of the VQ loss. Usual weights lie between 0.02 and 2; at 10 a digit model still "
        "kept perplexity 90 of 256, at 100 it collapsed unless its codebook came from data.",
    )


def evaluate(
    balance: LossBalance | None,
    record: TrainingRecord | None,
    usage: Usage | None,
    metrics: TaskMetrics | None,
    relation: EmaRelation | None,
    terms: LossTerms | None,
    codebook: CodebookGradient | None,
    memory: OptimizerMemory | None,
    limits: Limits,
) -> Problems:
    """Compare the gradients where they were measured, else the recorded weight."""
    if balance is None and record is None:
        raise NoEvidence("neither the gradients nor the recorded weight are known")
    if usage is not None and usage.implicit:
        raise CannotJudge("the loss of a layer without a codebook keeps its codes in use")
    if _harm.lost(codebook, memory):
        raise CannotJudge("the training that saved the file did not have the VQ loss's gradient (VQ103)")
    weights = _weights(balance, record, terms)
    name, weight = max(weights.items(), key=lambda item: item[1], default=("", 0.0))
    if balance is not None and balance.ratio is not None and balance.ratio > limits.gradient_ratio:
        if weight <= limits.weight and _scale.broken(relation):
            raise CannotJudge("codes on another scale than z_e make the VQ loss explode, whatever its weight")
        at = "" if balance.vq_weight is None else f" at weight {figure(balance.vq_weight)}"
        yield problem(
            _harm.severity(metrics, acts=_harm.outpulled(balance)),
            f"The VQ loss{at} pulls {figure(balance.ratio)} times as hard at the encoder as the task does.",
            measured("gradient_ratio", balance.ratio, limits.gradient_ratio),
            measured("task_loss", balance.task_loss),
            measured("vq_loss", balance.vq_loss),
        )
        return
    if not weights and (balance is None or balance.ratio is None):
        raise CannotJudge("the weight of the VQ loss is recorded nowhere")
    if weight > limits.weight:
        what = "VQ loss" if name == "vq_weight" else "commitment loss"
        ratio = None if balance is None else balance.ratio
        by_now = ""
        if ratio is not None and ratio < 1:  # where z_e lies on the codes, there is little left to pull at
            by_now = f", even if the gradient that is left of it is {figure(ratio)} of the task's by now"
        yield problem(
            _harm.severity(metrics, acts=_harm.outpulled(balance)),
            f"The {what} has weight {figure(weight)}: at this weight the encoder can gain more by going "
            f"to one code than by doing its task{by_now}.",
            measured(name, weight, limits.weight),
            if_known("gradient_ratio", ratio),
            confidence=Confidence.MEDIUM if balance is None else Confidence.HIGH,
            decide_with="--data batch.npz" if balance is None else "",
        )


def _weights(
    balance: LossBalance | None, record: TrainingRecord | None, terms: LossTerms | None
) -> dict[str, float]:
    """Return the weights that are known, by name; the task's own word outranks the file's."""
    known = {  # of two equal ones the first is told: a layer's own factor of 1 makes nothing heavy
        "vq_weight": record.vq_weight if record else None,
        "commitment_weight": record.commitment_weight if record else None,
    }
    if balance is not None and balance.vq_weight is not None:
        known["vq_weight"] = balance.vq_weight
        if known["commitment_weight"] is None and (said := _said_by_layer(terms)) is not None:
            known["commitment_weight"] = said * balance.vq_weight
    return {name: value for name, value in known.items() if value is not None}


def _said_by_layer(terms: LossTerms | None) -> float | None:
    """Return the commitment weight that the layer says of itself, where the gradient at z_e bears it out."""
    if terms is None or terms.beta_from != "layer" or not terms.beta or terms.commitment is None:
        return None
    is_so = terms.beta / _reduction.FACTOR <= terms.commitment <= terms.beta * _reduction.FACTOR
    return terms.beta if is_so else None


CHECK = Check(
    code="VQ201",
    name="vq-loss-too-heavy",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("lower-vq-weight", "warm-up"),
    explained_by=("VQ901", "VQ404", "VQ204"),
    meaningless_after=("VQ101", "VQ102"),
    examples=(
        fires(
            "weight 100, early in training",
            LossBalance.healthy(
                vq_loss=2.9, vq_weight=100.0, vq_gradient=0.08, task_gradient=0.11, ratio=72.7
            ),
        ),
        fires(
            "weight 100, after the collapse",
            LossBalance.healthy(
                vq_loss=3e-5, vq_weight=100.0, vq_gradient=0.0009, task_gradient=0.1, ratio=0.87
            ),
        ),
        fires(
            "a layer whose own commitment weight is 300",
            LossBalance.healthy(vq_weight=1.0, ratio=0.16),
            LossTerms.healthy(commitment=411.0, beta=300.0, beta_from="layer"),
        ),
        fires("a bare file that records weight 100", TrainingRecord.healthy(vq_weight=100.0)),
        passes("weight 0.1", LossBalance.healthy(), TrainingRecord.healthy()),
        passes("a bare file that records 0.1", TrainingRecord.healthy()),
    ),
    doc=__doc__,
)
