"""How hard the VQ loss pulls at z_e, against the task loss."""

from __future__ import annotations

from vqdoctor.capture.step import Step
from vqdoctor.core.evidence import LossBalance
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import each_layer
from vqdoctor.probes.model._looks import each_step


def _look(_: ModelContext, step: Step) -> tuple[float, float, float, float, int] | None:
    """Return both losses of a batch, the norms of their gradients at z_e, and the number of vectors."""
    if step.losses.vq is None:
        return None
    losses = (step.losses.task, step.losses.vq)
    pulls = (step.pulls.of(loss, step.z_e) for loss in losses)
    task, vq = (0.0 if g is None else float(g.norm()) for g in pulls)
    return losses[0].item(), losses[1].item(), vq, task, step.vectors


LOOK = each_step(_look)


def measure(context: ModelContext) -> dict[str, LossBalance]:
    """Return the loss balance of every layer, averaged over the training batches."""
    weight = context.vq_weight
    measured = {}
    for name, parts in LOOK.at(context).items():
        rows = [part for part in parts if part is not None]
        if not rows:
            continue
        task_loss, vq_loss, vq, task, _ = (sum(column) / len(rows) for column in zip(*rows, strict=True))
        measured[name] = LossBalance(
            source="batch",
            sample_size=sum(row[-1] for row in rows),
            task_loss=task_loss,
            vq_loss=vq_loss,
            vq_weight=weight,
            vq_gradient=vq,
            task_gradient=task,
            ratio=weight * vq / task if weight is not None and task else None,
        )
    return measured


PROBE = each_layer(
    LossBalance,
    measure,
    "the task reports no VQ loss",
    mode="train",
    needs_codebook=False,
    needs_vq_loss=True,
)
