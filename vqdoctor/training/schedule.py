"""The schedule of the VQ loss's weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch

BALANCE = 0.1
"""Of a balanced weight: how strong the VQ loss pulls at z_e, as a share of the task loss."""


def warm_up(epoch: int, epochs: int) -> float:
    """Return the factor of the VQ loss's weight in an epoch: from 1/epochs up to one, linearly.

    Args:
        epoch: the epoch, from 0.
        epochs: epochs until the full weight; 0 for no warm-up.

    >>> [warm_up(epoch, 4) for epoch in range(6)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    >>> warm_up(0, 0)
    1.0
    """
    return min(1.0, (epoch + 1) / epochs) if epochs > 0 else 1.0


def balanced_weight(
    task: torch.Tensor,
    vq: torch.Tensor | None,
    z_e: Sequence[torch.Tensor],
    complete: Callable[[Sequence[torch.Tensor | None]], Sequence[torch.Tensor | None]] = lambda own: own,
) -> float | None:
    """Return the weight at which the VQ loss pulls at z_e by a tenth of the task loss's gradient.

    The gradients' norms are compared as in the adaptive weight of Esser et al. 2021 (VQGAN), at z_e. The
    result is None where one of the losses does not pull. `complete` adds what other processes know of the
    gradients.
    """
    if vq is None or not vq.requires_grad or not z_e:
        return None
    pulls = [torch.autograd.grad(loss, z_e, retain_graph=True, allow_unused=True) for loss in (task, vq)]
    task_pull, vq_pull = (_norm(complete(pull)) for pull in pulls)
    return BALANCE * task_pull / vq_pull if vq_pull > 0 and task_pull > 0 else None


def _norm(gradients: Iterable[torch.Tensor | None]) -> float:
    return math.sqrt(sum(float(g.square().sum()) for g in gradients if g is not None))
