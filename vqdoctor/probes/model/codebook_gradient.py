"""Who moves the codebook: the optimizer by its gradient, an EMA in the forward pass, or nobody."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from vqdoctor.core.evidence import CodebookGradient, Evidence, Unavailable
from vqdoctor.probes.model._context import ModelContext, gradient
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.probe import Probe


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield what moves every layer's codebook."""
    before = {
        name: codebook.detach().clone()
        for name, layer in context.layers.items()
        if (codebook := layer.stored()) is not None
    }
    measured: dict[str, CodebookGradient] = {}
    for steps in context.steps():
        for name, step in steps.items():
            codebook, losses = step.layer.stored(), step.losses
            assert codebook is not None
            grad = gradient(losses.task, codebook)
            if losses.vq is not None and context.vq_weight != 0:
                pull = gradient(losses.vq, codebook)
                weight = 1.0 if context.vq_weight is None else context.vq_weight
                grad = _sum(grad, None if pull is None else weight * pull)
            so_far = measured.get(name)
            moved = not torch.equal(codebook.detach().cpu(), before[name].cpu())
            touched = 0 if grad is None else int(grad.reshape(-1, grad.shape[-1]).any(dim=1).sum())
            measured[name] = CodebookGradient(
                layer=name,
                source="batch",
                sample_size=step.layer.num_codes,
                trainable=codebook.requires_grad,
                ema_owned=moved or bool(so_far and so_far.ema_owned),
                gradient=_largest(
                    so_far.gradient if so_far else None, None if grad is None else float(grad.norm())
                ),
                touched_rows=max(touched, so_far.touched_rows if so_far else 0),
            )
    frozen = {view.name for view in context.views if view.frozen}
    for name in frozen:
        why = "the table behind this codebook stays as initialised by design"
        yield Unavailable(kind=CodebookGradient.kind, layer=name, source="batch", reason=why)
    gaps = by_layer(context, CodebookGradient, measured)
    yield from (item for item in gaps if item.layer not in frozen)


def _sum(one: torch.Tensor | None, other: torch.Tensor | None) -> torch.Tensor | None:
    return other if one is None else one if other is None else one + other


def _largest(one: float | None, other: float | None) -> float | None:
    return max((x for x in (one, other) if x is not None), default=None)


PROBE = Probe(kinds=(CodebookGradient,), measure=measure, mode="train", needs_vq_loss=True)
