"""The commitment weight multiplies the codebook's term in place of the encoder's.

## Why it matters
The VQ loss has two terms: one moves the codebook to the encoder's output, the other, weighted by beta,
commits the encoder to its code. With the terms swapped, the encoder is held 1/beta and the codebook beta
times as hard: for the usual beta of 0.25, the encoder 4 times as hard as the codebook in place of a
quarter. The codebook follows slowly, and the encoder is tied to where it happens to be.

## How to read it
The gradients of the VQ loss at z_e and at the codebook are compared with those of plain means of squares.
That gives the weights of the two terms whatever the code calls them; their ratio should be beta. Beta
comes from the file or else from an attribute of the layer. Without either, a ratio of two and more is
suspicious, and it is a finding only where the codebook is poorly used. A layer that says `legacy=True` of
itself (taming-transformers, diffusers) is swapped on purpose: a note where its codes are in use. With an EMA
there is only one term, and nothing to swap.

Swapped terms do harm by tying the encoder, so the pull of the VQ loss at z_e tells whether they do. Up to the
task's they are a note, and explain none of the other findings: transformers' Chameleon is made like that.
Five sound models with its layer measured pulls of 0.21 to 0.66 and used their codes. With diffusers' layer, a
squared error was 0.97 times that of the right order at a pull of 0.63.

## Remedy
The term with `z_e.detach()` moves the codebook; the one with `z_q.detach()` is the commitment and moves
the encoder. In taming-transformers, diffusers and their heirs it is `legacy=False`. A training that was
tuned with the terms swapped has an effective VQ weight of beta and an effective beta of 1/beta: to keep
its balance, use these.

## References
- CompVis/taming-transformers#57: beta on the wrong term; legacy=False fixes it
- huggingface/diffusers#8226, TencentARC/SEED-Voken#60: the same, inherited
"""

import math

from vqdoctor.checks import _harm, _usage
from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.checks._words import Problems, figure, if_known, measured, problem
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import LossBalance, LossTerms, Usage
from vqdoctor.core.finding import Problem
from vqdoctor.core.levels import Confidence, Severity


class Limits(CheckLimits):
    """How exactly the ratio of the two weights must be met."""

    factor: float = limit(
        2.0,
        "Factor within which the ratio of the two weights counts as beta, or as 1/beta. Single layers and "
        "residual levels meet it to 1 %; levels that are given the same z_e, for want of a subtraction, "
        "measured up to 1.8 times beta.",
    )
    ratio: float = limit(
        2.0,
        "Ratio of the encoder's and the codebook's weight from which the terms look swapped where no beta is "
        "known. Usual betas lie between 0.1 and 1.",
    )


def evaluate(terms: LossTerms, usage: Usage | None, balance: LossBalance | None, limits: Limits) -> Problems:
    """Compare the ratio of the two weights with beta and with 1/beta."""
    if terms.commitment is None or terms.codebook is None:
        raise CannotJudge(
            "the VQ loss has no squared-error term that moves the codebook, or none that moves the encoder"
        )
    ratio = terms.commitment / terms.codebook
    poor = usage is not None and _usage.poor(usage)
    if terms.beta is None:
        if ratio < limits.ratio:
            return
        if not poor:
            raise CannotJudge(
                f"the encoder is held {figure(ratio)} times as hard as the codebook, and beta is not recorded"
            )
        yield _problem(ratio, None, balance, Confidence.LOW, limits, chosen=False)
        return
    swapped = terms.beta > 0 and _near(ratio, 1 / terms.beta, limits) and not _near(ratio, terms.beta, limits)
    if swapped:
        confidence = Confidence.HIGH if terms.beta_from == "record" else Confidence.MEDIUM
        yield _problem(ratio, terms.beta, balance, confidence, limits, chosen=terms.legacy and not poor)


def _near(value: float, target: float, limits: Limits) -> bool:
    return abs(math.log(value / target)) <= math.log(max(limits.factor, 1.0))


def _problem(
    ratio: float,
    beta: float | None,
    balance: LossBalance | None,
    confidence: Confidence,
    limits: Limits,
    *,
    chosen: bool,
) -> Problem:
    expected = "where less than 1 is usual" if beta is None else f"where beta = {figure(beta)} asks for that"
    pull = None if balance is None else balance.ratio
    harmless = pull is not None and not _harm.outpulled(balance)
    pulls = f", and it pulls {figure(pull)} times as hard at the encoder as the task does" if pull else ""
    return problem(
        Severity.NOTE if harmless or chosen else Severity.WARNING,
        f"The VQ loss holds the encoder {figure(ratio)} times as hard as the codebook, {expected}: "
        f"its two terms are swapped{pulls}.",
        measured("ratio", ratio, limits.ratio if beta is None else beta),
        if_known("beta", beta),
        if_known("pull", pull, _harm.OUTPULLED),
        confidence=confidence,
    )


CHECK = Check(
    code="VQ203",
    name="beta-on-wrong-term",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="swap-loss-terms",
        how="Multiply the term that moves the encoder by beta, not the one that moves the codebook.",
        code="vq = F.mse_loss(z_q, z_e.detach()) + beta * F.mse_loss(z_e, z_q.detach())",
        setting=("beta on commitment", "True"),
    ),
    explained_by=("VQ103",),
    examples=(
        fires("beta 0.25 on the codebook", LossTerms.healthy(commitment=1.0, codebook=0.25), Usage.healthy()),
        fires(
            "a legacy layer with a collapsed codebook",
            LossTerms.healthy(commitment=1.0, codebook=0.25, legacy=True),
            COLLAPSED_USAGE,
        ),
        fires(
            "no beta recorded, and a collapsed codebook",
            LossTerms.healthy(commitment=1.0, codebook=0.25, beta=None, beta_from=""),
            COLLAPSED_USAGE,
        ),
        fires(
            "transformers' Chameleon, whose loss leaves the encoder to the task: a note",
            LossTerms.healthy(commitment=1.0, codebook=0.25, beta_from="layer"),
            LossBalance.healthy(ratio=0.21),
        ),
        passes("beta 0.25 on the encoder's term", LossTerms.healthy(), Usage.healthy()),
        fires(
            "a legacy layer whose codebook is in use: a note",
            LossTerms.healthy(commitment=1.0, codebook=0.25, legacy=True),
            Usage.healthy(),
        ),
        passes("terms equal", LossTerms.healthy(commitment=1.0, codebook=1.0, beta=1.0), Usage.healthy()),
    ),
    doc=__doc__,
)
