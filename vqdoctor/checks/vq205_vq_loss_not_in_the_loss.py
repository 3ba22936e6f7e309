"""The VQ layer's loss takes no part in the training.

## Why it matters
The VQ loss holds the encoder near the codes and, where no EMA does, moves the codes. A VQ layer that
returns its loss is easily connected by halves: the value is logged and never added, or it went through
`.item()` or `.detach()` on its way. The encoder then drifts away from the codebook, and ever fewer codes
are within its reach.

## How to read it
The layer's own loss is the float output with at most one axis that has a gradient at z_e. One of the
task's losses must depend on it, or the task must report another VQ loss that reaches z_e; and the VQ
loss's weight must not be 0. A layer that returns no loss (FSQ, NSVQ, a commitment weight of 0) is not held
to have one. vqdoctor sees the Task, not your training loop: if that adds the loss, return it from the Task.
A loss that is added and has no gradient at all is VQ206. It is an error where the codes have no other teacher
(as in VQ103), where they lose a fifth of the task, or where the task does a fifth worse with z_e in place of
the codes: then z_e has left them.

## Remedy
The VQ loss holds the encoder near the codes and, where no EMA does, moves the codes. Take the tensor
that the layer returns, not its `.item()` or `.detach()`. A layer that needs no such loss (FSQ, NSVQ)
returns none. If your training does add it and only the Task leaves it out, return it there as `vq`.
`fix --retrain` adds what is missing at the layer's boundary (commitment-term): the layer's own loss, or
0.25 · mse(z_e, sg z_q).

## References
- EdoardoBotta/RQ-VAE-Recommender#31: the commitment weight never reached the quantizer
- van den Oord et al. 2017, arXiv:1711.00937: what each term is for
"""

from vqdoctor.checks import _harm
from vqdoctor.checks._words import Problems, figure, if_known, measured, problem
from vqdoctor.core.check import Advice, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import (
    CodebookGradient,
    DataMatch,
    EmaRelation,
    FirstInput,
    LossPath,
    LossUse,
    TaskMetrics,
)
from vqdoctor.core.levels import Confidence, Severity


class Limits(CheckLimits):
    """When a loss counts as absent."""

    gradient: float = limit(
        0.0,
        "Largest gradient norm at z_e that counts as none. A loss that is not connected has exactly none; "
        "a small one may have a large weight.",
    )
    weight: float = limit(
        0.0,
        "Largest weight of the VQ loss that counts as none. Weights that are merely too small are judged by "
        "what they do (VQ202).",
    )


def evaluate(
    use: LossUse,
    path: LossPath | None,
    mover: CodebookGradient | None,
    metrics: TaskMetrics | None,
    relation: EmaRelation | None,
    match: DataMatch | None,
    first: FirstInput | None,
    limits: Limits,
) -> Problems:
    """Ask for a loss, then whether it is connected, then whether it has a weight."""
    lifeless = path is not None and path.reported and not path.alive
    pulls = use.gradient is not None and use.gradient > limits.gradient
    offered = use.offered > limits.gradient
    confidence = Confidence.HIGH
    if (pulls or offered) and use.vq_weight is not None and use.vq_weight <= limits.weight:
        fault = f"The VQ loss has weight {figure(use.vq_weight)}"
    elif offered and use.used is False and not pulls:
        fault = (
            f"The VQ layer returns a loss with gradient {figure(use.offered)} at z_e, but no loss of the "
            "task depends on it"
        )
        confidence = Confidence.MEDIUM if use.reported is None else Confidence.HIGH
    elif use.reported and use.gradient is not None and not (pulls or offered or lifeless):
        fault = f"The VQ loss that the task reports is {figure(use.reported)}, but its gradient at z_e is 0"
        if mover is not None and mover.gradient:
            fault += ", while it moves the codes: its commitment term is missing, or has weight 0"
        confidence = Confidence.MEDIUM
    else:
        return
    waits = _harm.waits(mover) and mover is not None and not mover.gradient
    acts = _harm.apart(metrics, relation) or _harm.outgrown(match, first)
    yield problem(
        Severity.ERROR if waits else _harm.severity(metrics, acts=acts),
        f"{fault}, so the encoder is not held near the codes.",
        if_known("reported_gradient", use.gradient, limits.gradient),
        if_known("vq_weight", use.vq_weight, limits.weight),
        measured("offered_gradient", use.offered),
        confidence=confidence,
        remedies=("add-vq-loss", "commitment-term"),
    )


CHECK = Check(
    code="VQ205",
    name="vq-loss-not-in-the-loss",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("commitment-term",),
    advice=Advice(
        name="add-vq-loss",
        how="Add the VQ layer's loss to the training loss, with its graph, its commitment term and a weight "
        "above 0.",
        code="vq = F.mse_loss(z_q, z_e.detach()) + 0.25 * F.mse_loss(z_e, z_q.detach())\n"
        "loss = task + 0.1 * vq   # no .item(), no .detach() of the whole",
    ),
    examples=(
        fires("the loss is logged only", LossUse.healthy(used=False, reported=None, gradient=None)),
        fires("the loss went through detach", LossUse.healthy(used=False, gradient=0.0)),
        fires("weight 0", LossUse.healthy(vq_weight=0.0)),
        fires("reported without commitment term", LossUse.healthy(offered=0.0, used=None, gradient=0.0)),
        passes("added with weight 0.1", LossUse.healthy()),
        passes("layer without a loss", LossUse.healthy(offered=0.0, used=None, reported=None, gradient=None)),
        passes(
            "the reported loss has no gradient at all (VQ206)",
            LossUse.healthy(offered=0.0, used=None, gradient=0.0),
            LossPath.healthy(alive=False),
        ),
        passes("the training computes its own VQ loss", LossUse.healthy(used=False, gradient=0.004)),
        passes(
            "a loss outside of a layer whose encoder runs under no_grad",
            LossUse.healthy(offered=0.0, used=None, gradient=None),
        ),
    ),
    doc=__doc__,
)
