"""The same batch takes other codes in eval mode than in training, and loses by it.

## Why it matters
A codebook is placed where z_e lies in training. If z_e lies elsewhere in eval mode, since running statistics
of a batch norm are stale, or since dropout or noise comes before the layer, other codes are chosen than the
decoder was trained on. Training curves look well, and every evaluation is worse than they promise.

## How to read it
One training batch goes through two copies, one in each mode, before any update. A batch norm takes its
statistics from the batch in training, which moves codes in health too: the share that this explains is
measured on half of the batch, with batch norms alone in train mode. The gap counts where it is far larger,
and where the task loss rises or the perplexity falls in eval mode. A layer that draws its codes at random
(Gumbel, stochastic codes) is exempt.

## Remedy
Collect the running statistics afresh, by train-mode passes without steps, or take a norm without them (group
or layer norm). Take dropout and noise out of the path before the layer.

## References
- Ioffe and Szegedy 2015, arXiv:1502.03167, section 3.1: population statistics at inference
- Łańcucki et al. 2020, arXiv:2005.08520: batch norm before the VQ layer
"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.checks._words import figure, measured, percent, problem
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import TrainEvalGap
from vqdoctor.core.finding import Problem
from vqdoctor.core.levels import Confidence, Severity


class Limits(CheckLimits):
    """How large a gap counts, and what it must cost."""

    gap: float = limit(
        0.25,
        "Least share of the codes that changes beyond what batch statistics explain. A trained batch norm "
        "with momentum 0.1 measured 0.00, with momentum 0.01 and 0.0001 0.80 and 0.84 after 200 steps.",
    )
    loss: float = limit(
        1.5,
        "Least ratio of the task loss in eval and in train mode that counts. The same batch norms measured "
        "1.04, 7.8 and 8.6; dropout of 0.2 and 0.5 before the layer 0.93.",
    )
    perplexity: float = limit(
        0.5,
        "Largest ratio of the perplexity in eval and in train mode that counts: half of the codes are lost. "
        "The same batch norms measured 0.97, 0.08 and 0.06. Four other layers measured, after the limit was "
        "set, 0.97 to 1.02 in health, 0.67 to 0.96 with dropout up to 0.2, 0.39 to 0.61 with 0.5, 0.54 to "
        "0.87 with noise of the size of z_e, 0.07 to 0.49 with three times as much, and 0.04 to 0.22 with "
        "batch norms of momentum 0.001. No gap separates these, so the limit is a convention.",
    )
    vectors: float = limit(
        8.0,
        "Least samples in the batch: of fewer, a batch norm's statistics explain any change of the codes.",
    )


def evaluate(modes: TrainEvalGap, limits: Limits) -> Iterator[Problem]:
    """Fire on a gap that batch norms do not explain, and that costs something."""
    if modes.sample_size < limits.vectors:
        raise CannotJudge(f"a batch of {modes.sample_size} samples is too small to compare the modes")
    gap = modes.explained - modes.agreement
    loss = modes.eval_loss / modes.train_loss if modes.train_loss > 0 else 1.0
    perplexity = modes.eval_perplexity / modes.train_perplexity
    if gap <= limits.gap or (loss <= limits.loss and perplexity >= limits.perplexity):
        return
    cost = (
        f"the task loss is {figure(loss)} times as large"
        if loss > limits.loss
        else f"the perplexity falls from {figure(modes.train_perplexity)} to {figure(modes.eval_perplexity)}"
    )
    yield problem(
        Severity.WARNING,
        f"{percent(1 - modes.agreement)} of a training batch's codes change from train to eval mode, "
        f"where batch statistics explain {percent(1 - modes.explained)}, and {cost} in eval mode.",
        measured("gap", gap, limits.gap),
        measured("loss_ratio", loss, limits.loss),
        measured("perplexity_ratio", perplexity, limits.perplexity),
        measured("agreement", modes.agreement),
        confidence=Confidence.HIGH,
    )


CHECK = Check(
    code="VQ606",
    name="train-eval-gap",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="refresh-batch-norm",
        how="Collect the running statistics of batch norms afresh, and put no noise before the codes.",
        code=(
            "for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):\n"
            "    norm.reset_running_stats(); norm.momentum = None   # a plain average\n"
            "for x in loader: model.train()(x)   # no optimizer steps"
        ),
    ),
    explained_by=("VQ901",),
    examples=(
        fires(
            "running statistics that were never updated",
            TrainEvalGap.healthy(agreement=0.1, explained=0.9, eval_loss=0.9, eval_perplexity=40.0),
        ),
        fires(
            "noise before the layer, without which few codes are chosen",
            TrainEvalGap.healthy(agreement=0.1, eval_perplexity=21.0),
        ),
        passes("the same in both modes", TrainEvalGap.healthy()),
        passes(
            "a batch norm before the layer, in small batches",
            TrainEvalGap.healthy(agreement=0.7, explained=0.65),
        ),
        passes(
            "dropout that costs nothing in eval mode", TrainEvalGap.healthy(agreement=0.5, eval_loss=0.02)
        ),
    ),
    doc=__doc__,
)
