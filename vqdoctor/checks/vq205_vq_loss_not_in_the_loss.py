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
A loss that is added and has no gradient at all is VQ206.

## Remedy
The VQ loss holds the encoder near the codes and, where no EMA does, moves the codes. Take the tensor
that the layer returns, not its `.item()` or `.detach()`. A layer that needs no such loss (FSQ, NSVQ)
returns none. If your training does add it and only the Task leaves it out, return it there as `vq`.

## References
- EdoardoBotta/RQ-VAE-Recommender#31: the commitment weight never reached the quantizer
- van den Oord et al. 2017, arXiv:1711.00937: what each term is for
"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.checks._words import figure, measured, problem
from vqdoctor.core.check import Advice, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import LossPath, LossUse
from vqdoctor.core.finding import Problem
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


def evaluate(use: LossUse, path: LossPath | None, limits: Limits) -> Iterator[Problem]:
    """Ask for a loss, then whether it is connected, then whether it has a weight."""
    lifeless = path is not None and path.reported and not path.alive
    pulls = use.gradient is not None and use.gradient > limits.gradient
    offered = use.offered > limits.gradient
    if (pulls or offered) and use.vq_weight is not None and use.vq_weight <= limits.weight:
        yield _problem(f"The VQ loss has weight {figure(use.vq_weight)}", Confidence.HIGH, use, limits)
    elif offered and use.used is False and not pulls:
        confidence = Confidence.MEDIUM if use.reported is None else Confidence.HIGH
        yield _problem(
            f"The VQ layer returns a loss with gradient {figure(use.offered)} at z_e, but no loss of the "
            "task depends on it",
            confidence,
            use,
            limits,
        )
    elif use.reported and not pulls and not offered and not lifeless:
        yield _problem(
            f"The VQ loss that the task reports is {figure(use.reported)}, but its gradient at z_e is 0",
            Confidence.MEDIUM,
            use,
            limits,
        )


def _problem(what: str, confidence: Confidence, use: LossUse, limits: Limits) -> Problem:
    known = (
        ("reported_gradient", use.gradient, limits.gradient),
        ("vq_weight", use.vq_weight, limits.weight),
        ("offered_gradient", use.offered, None),
    )
    return problem(
        Severity.WARNING,
        f"{what}, so nothing holds the encoder near the codes.",
        *tuple(measured(name, value, bar) for name, value, bar in known if value is not None),
        confidence=confidence,
    )


CHECK = Check(
    code="VQ205",
    name="vq-loss-not-in-the-loss",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="add-vq-loss",
        how="Add the loss that the VQ layer returns to the training loss, with its graph "
        "and a weight above 0.",
        code="loss = task + 0.1 * vq   # no .item(), no .detach()",
    ),
    examples=(
        fires(
            "the loss is logged and never added", LossUse.healthy(used=False, reported=None, gradient=None)
        ),
        fires("the loss went through detach", LossUse.healthy(used=False, gradient=0.0)),
        fires("weight 0", LossUse.healthy(vq_weight=0.0)),
        fires(
            "the reported loss has no commitment term", LossUse.healthy(offered=0.0, used=None, gradient=0.0)
        ),
        passes("added with weight 0.1", LossUse.healthy()),
        passes(
            "a layer without a loss", LossUse.healthy(offered=0.0, used=None, reported=None, gradient=None)
        ),
        passes(
            "the reported loss has no gradient at all (VQ206)",
            LossUse.healthy(offered=0.0, used=None, gradient=0.0),
            LossPath.healthy(alive=False),
        ),
        passes("the training computes its own VQ loss", LossUse.healthy(used=False, gradient=0.004)),
    ),
    doc=__doc__,
)
