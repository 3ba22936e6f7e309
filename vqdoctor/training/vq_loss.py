"""The loss of a training step: the task's own, and what a training plan adds at the layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch.nn import functional

from vqdoctor.capture.layer import CapturedLayer, Watched
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.models.task import Losses
from vqdoctor.training.usage_entropy import mean_entropy


def completed(found: Losses, layers: Iterable[CapturedLayer], watched: Watched, plan: TrainingPlan) -> Losses:
    """Return the losses of a step with the terms that the plan adds.

    A plan with a commitment weight β adds β · mse(z_e, sg z_q), the sum over the layers, to the VQ loss;
    where the task tells none that has a gradient, the losses that the layers return are taken in its place.
    Under a taken-over EMA a commitment loss, the mean over the calls, stands in for a VQ loss without a
    gradient; where the task tells none, a loss of a layer's own that has a gradient is taken for a part of
    the task loss.
    """
    if not (plan.sound_ema or plan.commitment):
        return found
    calls = [layer.calls(watched) for layer in layers]
    own = [loss for some in calls for call in some for loss in call.losses]
    terms = [
        [
            functional.mse_loss(call.z_e, call.z_q.detach())
            for call in some
            if call.z_q is not None and call.z_q.shape == call.z_e.shape
        ]
        for some in calls
    ]
    terms = [some for some in terms if some]
    has_gradient = found.vq is not None and found.vq.requires_grad
    if plan.commitment and own and not has_gradient:
        return replace(found, vq=torch.stack([loss.reshape(()) for loss in own]).sum())
    if plan.commitment and terms:
        commitment = plan.commitment * torch.stack([torch.stack(some).mean() for some in terms]).sum()
        return replace(found, vq=commitment if found.vq is None else found.vq + commitment)
    if terms and not (has_gradient or (found.vq is None and own)):
        return replace(found, vq=torch.stack([term for some in terms for term in some]).mean())
    return found


def weighted(
    found: Losses, weight: float, plan: TrainingPlan, layers: tuple[CapturedLayer, ...], watched: Watched
) -> torch.Tensor:
    """Return the loss of a step: task + weight · VQ, less the usage's entropy where the plan weighs it."""
    total = found.task if found.vq is None else found.task + weight * found.vq
    entropy = mean_entropy(layers, watched) if plan.entropy_weight else None
    return total if entropy is None else total - plan.entropy_weight * entropy
