"""The VQ loss is part of the loss, but it has no gradient.

## Why it matters
A VQ loss trains something only if it depends on something that is trained. `mse(z_e.detach(), z_q)` with a
z_q from an EMA buffer depends on two constants: the loss is added, printed and plotted, and changes no
weight. Nothing then holds the encoder near the codes, and the printed loss grows without bound.

## How to read it
PyTorch says whether a tensor requires a gradient; here the VQ loss does not, while the task loss does. The
usual forms: the wrong operand is detached, both operands are (a codebook in a buffer counts as detached), the
layer works under `torch.no_grad()`, or it returns `loss.item()`. A layer's loss that has a gradient and loses
it in the training is VQ205, and so is a VQ loss with weight 0. If the task reports no VQ loss, vqdoctor looks
for an output of the layer that stays proportional to |z_e - z_q|^2 from batch to batch; whether the training
adds it is then not known, so the confidence is medium. It is an error where the codes wait for that loss,
where they lose a fifth of the task, or where the task does a fifth worse with z_e in place of them.

## Remedy
Detach the code and not the encoder's output. With an EMA codebook this commitment term is the whole VQ loss.
A codebook without an EMA needs the other term as well, on a codebook that is an `nn.Parameter`.
A retraining with sound-ema adds a commitment loss of its own.

## References
- van den Oord et al. 2017, arXiv:1711.00937, equation 3: which term detaches which operand
- Measured: an EMA layer with `0.4 * mse(z_e.detach(), z_q)` on motion windows ended at a VQ loss of 1e9
"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.checks import _harm
from vqdoctor.checks._words import figure, measured, problem
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import CodebookGradient, EmaRelation, LossPath, TaskMetrics
from vqdoctor.core.finding import Problem
from vqdoctor.core.levels import Confidence, Severity


class Limits(CheckLimits):
    """Which losses are worth a gradient."""

    value: float = limit(
        0.0,
        "Largest VQ loss that needs no gradient. Layers whose commitment weight is 0 return a constant 0 for "
        "their loss; any other value was meant to train something.",
    )


def evaluate(
    path: LossPath,
    codebook: CodebookGradient | None,
    metrics: TaskMetrics | None,
    relation: EmaRelation | None,
    limits: Limits,
) -> Iterator[Problem]:
    """Fire on a VQ loss with a value and without a gradient: an error where codes wait, or by harm."""
    if path.value is None:
        raise CannotJudge("neither the task nor the layer gives a VQ loss")
    if path.alive is None:
        raise CannotJudge("the encoder is frozen, so no VQ loss outside the layer can have a gradient")
    if path.alive or path.value <= limits.value or path.vq_weight == 0:
        return
    of = "that the task reports" if path.reported else "that the layer returns"
    waits = path.reported and _harm.waits(codebook)
    yield problem(
        Severity.ERROR if waits else _harm.severity(metrics, acts=_harm.apart(metrics, relation)),
        f"The VQ loss {of} is {figure(path.value)}, but nothing that it depends on requires a gradient, so "
        "it trains neither the encoder nor the codes.",
        measured("vq_loss", path.value, limits.value),
        confidence=Confidence.HIGH if path.reported else Confidence.MEDIUM,
        decide_with="" if path.reported else "--vq-loss KEY, or --task",
    )


CHECK = Check(
    code="VQ206",
    name="vq-loss-without-gradient",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("sound-ema",),
    advice=Advice(
        name="detach-the-code",
        how="In the VQ loss detach the code, and leave the encoder's output in the graph.",
        code="vq_loss = 0.25 * F.mse_loss(z_e, z_q.detach())   # not z_e.detach()",
    ),
    explained_by=("VQ901",),
    examples=(
        fires("the wrong operand is detached", LossPath.healthy(alive=False)),
        fires("the same, and the task reports no VQ loss", LossPath.healthy(alive=False, reported=False)),
        fires(
            "the same on a codebook that only the VQ loss could train",
            LossPath.healthy(alive=False),
            CodebookGradient.healthy(trainable=True, ema_owned=False),
        ),
        passes("a commitment loss", LossPath.healthy()),
        passes("a layer whose commitment weight is 0", LossPath.healthy(value=0.0, alive=False)),
        passes("a number that is logged and has weight 0", LossPath.healthy(alive=False, vq_weight=0.0)),
    ),
    doc=__doc__,
)
