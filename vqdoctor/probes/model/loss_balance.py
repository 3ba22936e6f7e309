"""How hard the VQ loss pulls at z_e, against the task loss."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from vqdoctor.core.evidence import Evidence, LossBalance, Unavailable
from vqdoctor.probes.model._context import ModelContext, gradient
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.probe import Probe


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield the loss balance of every layer, averaged over the training batches."""
    parts: dict[str, list[tuple[float, float, float, float, int]]] = defaultdict(list)
    for steps in context.steps():
        for name, step in steps.items():
            losses = step.losses
            if losses.vq is not None:
                pulls = (gradient(loss, step.z_e) for loss in (losses.vq, losses.task))
                vq, task = (0.0 if g is None else float(g.norm()) for g in pulls)
                parts[name].append((losses.task.item(), losses.vq.item(), vq, task, step.vectors))
    weight = context.vq_weight
    measured = {}
    for name, rows in parts.items():
        task_loss, vq_loss, vq, task, _ = (sum(column) / len(rows) for column in zip(*rows, strict=True))
        measured[name] = LossBalance(
            layer=name,
            source="batch",
            sample_size=sum(row[-1] for row in rows),
            task_loss=task_loss,
            vq_loss=vq_loss,
            vq_weight=weight,
            vq_gradient=vq,
            task_gradient=task,
            ratio=weight * vq / task if weight is not None and task else None,
        )
    yield from by_layer(context, LossBalance, measured, "the task reports no VQ loss")


PROBE = Probe(kinds=(LossBalance,), measure=measure, mode="train", needs_codebook=False, needs_vq_loss=True)
