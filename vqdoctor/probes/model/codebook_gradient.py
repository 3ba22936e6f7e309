"""The mover of the codebook: the optimizer by its gradient, an EMA in the forward pass, or neither."""

from __future__ import annotations

import torch

from vqdoctor.capture.step import Step
from vqdoctor.core.evidence import CodebookGradient
from vqdoctor.probes.model._context import ModelContext, total_gradient
from vqdoctor.probes.model._gaps import each_layer
from vqdoctor.probes.model._looks import each_step
from vqdoctor.probes.model.task_gradient import untrained
from vqdoctor.probes.probe import Missing


def _look(context: ModelContext, step: Step) -> tuple[bool, bool, float | None, int]:
    codebook, before = step.layer.stored(), context.layers[step.layer.name].stored()
    assert codebook is not None
    assert before is not None
    weight = 1.0 if context.vq_weight is None else context.vq_weight
    grad = total_gradient(step.losses, codebook, weight, step.pulls.of)
    moved = not torch.equal(codebook.detach().cpu(), before.detach().cpu())
    touched = 0 if grad is None else int(grad.reshape(-1, grad.shape[-1]).any(dim=1).sum())
    return codebook.requires_grad, moved, None if grad is None else float(grad.norm()), touched


LOOK = each_step(_look)


def measure(context: ModelContext) -> dict[str, CodebookGradient | Missing]:
    """Return the mover of every layer's codebook."""
    measured: dict[str, CodebookGradient | Missing] = {}
    looks = LOOK.at(context)
    still = any(not (trainable or moved) for parts in looks.values() for trainable, moved, _, _ in parts)
    fixed = untrained(context) if still else set()
    for name, parts in looks.items():
        trainable, moved, norms, touched = zip(*parts, strict=True)
        measured[name] = CodebookGradient(
            source="batch",
            sample_size=context.layers[name].num_codes,
            trainable=trainable[-1],
            ema_owned=any(moved),
            gradient=max((norm for norm in norms if norm is not None), default=None),
            touched_rows=max(touched),
            fixed_input=name in fixed,
        )
    why = Missing("the table behind this codebook stays as initialised by design")
    return measured | {view.name: why for view in context.views if view.frozen}


PROBE = each_layer(CodebookGradient, measure, mode="train", needs_vq_loss=True)
