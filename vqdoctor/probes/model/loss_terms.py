"""The commitment and the codebook term of the VQ loss, told apart by their gradients.

A squared-error VQ loss, a mean over everything, w_c mean (z_e - sg z_q)^2 + w_b mean (sg z_e - z_q)^2, has at
z_e the gradient w_c 2 (z_e - z_q) / n and at the codebook w_b times the sums of 2 (z_q - z_e) / n by code.
Projecting the measured gradients on these gives w_c and w_b, whatever the training called them. The z_e of a
residual level is that of the levels after it too, so their errors may add to its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from vqdoctor.capture.step import Step
from vqdoctor.capture.vectors import rows, unrows
from vqdoctor.core.evidence import LossTerms
from vqdoctor.layouts.stacks import stacks
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import each_layer
from vqdoctor.probes.model._looks import Looking, shared
from vqdoctor.vq.kmeans import nearest

FIT = 0.9
"""Least cosine of a gradient and its squared-error form for the weight to mean anything."""
_BETA = ("beta", "commitment_weight", "commitment_cost", "_commitment_cost", "commitment", "commit_weight")

_WITHIN = "input_to_quantize_commit_loss_weight"
"""Beside a weight of both terms: the share of it that the encoder's has, as in SimVQ."""


@shared(passes=1)
def look(context: ModelContext) -> Looking[dict[str, LossTerms]]:
    """See the gradients of the first training batch."""
    first = yield None
    steps = {name: step for name, step in (first or {}).items() if step.losses.vq is not None}
    after = {view.name: stack[at + 1 :] for stack in stacks(context.views) for at, view in enumerate(stack)}
    return {
        name: _terms(context, step, [steps[view.name] for view in after.get(name, ()) if view.name in steps])
        for name, step in steps.items()
    }


def measure(context: ModelContext) -> dict[str, LossTerms]:
    """Return the weights of the two terms at every layer, on the first training batch."""
    return look.at(context)


def _terms(context: ModelContext, step: Step, after: Sequence[Step]) -> LossTerms:
    pull = step.pulls.of(step.losses.vq, step.z_e) if _is_comparable(step) else None
    form = _form(step)
    beta, origin = _beta(context, step.layer.module)
    return LossTerms(
        source="batch",
        sample_size=step.vectors,
        dim=step.z_e.shape[step.axis],
        commitment=None if pull is None else _weight(pull, form, _with(form, after)),
        codebook=_codebook_weight(step, form),
        beta=beta,
        beta_from=origin,
        legacy=getattr(step.layer.module, "legacy", None) is True,
    )


def _is_comparable(step: Step) -> bool:
    """Whether z_q has the dimension of z_e: else there is no squared error."""
    return step.z_e.shape == step.z_q.shape


def _form(step: Step) -> torch.Tensor:
    """Return the gradient at z_e of a squared error, a mean over everything."""
    error = (step.z_e - step.z_q).detach() if _is_comparable(step) else torch.zeros_like(step.z_q)
    by_row = rows(error, step.axis)
    kept = step.quantized.reshape(*by_row.shape[:2], 1)  # a layer with a mask averages over these alone
    error = unrows(by_row * kept, error.shape, step.axis)
    return 2 * error / max(1, int(kept.sum()) * error.shape[step.axis])


def _with(form: torch.Tensor, after: Sequence[Step]) -> torch.Tensor:
    """Return the form of a level's error and those of the levels after it, as far as they have its shape."""
    return sum((_form(step) for step in after if step.z_q.shape == form.shape), start=form)


def _codebook_weight(step: Step, form: torch.Tensor) -> float | None:
    codebook, view = step.layer.stored(), step.layer.view
    if codebook is None:
        return None
    pull = step.pulls.of(step.losses.vq, codebook)
    vectors, sums = rows(step.z_q, step.axis).detach().flatten(0, 1), -rows(form, step.axis).flatten(0, 1)
    if (
        pull is None
        or vectors.shape[1] != view.dim  # the heads of one module, side by side
        or codebook.numel() != view.num_codes * view.dim
        or codebook.shape[-1] != view.dim
    ):
        return None
    codes = codebook.detach().reshape(-1, view.dim)
    # z_q is its code up to rounding, so its nearest code is the one that was looked up
    chosen, _ = nearest(vectors.to(codes.dtype), codes)
    return _weight(pull, torch.zeros_like(codes).index_add_(0, chosen, sums.to(codes.dtype)))


def _weight(pull: torch.Tensor, *forms: torch.Tensor) -> float | None:
    """Return the factor by which `pull` is the form that fits best; None where it is something else."""
    a = pull.flatten().double()
    best, found = FIT, None
    for form in forms:
        b = form.flatten().double()
        size = float(a.norm() * b.norm())
        if size > 0 and float(a @ b) >= best * size:
            best, found = float(a @ b) / size, float(a @ b / (b @ b))
    return found


def _beta(context: ModelContext, layer: nn.Module) -> tuple[float | None, str]:
    recorded = context.record.commitment_weight if context.record else None
    if recorded is not None:
        return recorded, "record"
    for module in layer.modules():
        for attribute in _BETA:
            if (value := _number(module, attribute)) is not None:
                within = _number(module, _WITHIN)
                return value * (1.0 if within is None else within), "layer"
    return None, ""


def _number(module: nn.Module, attribute: str) -> float | None:
    value = getattr(module, attribute, None)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


NO_LOSS = "the task reports no VQ loss"
PROBE = each_layer(LossTerms, measure, NO_LOSS, mode="train", needs_vq_loss=True)
