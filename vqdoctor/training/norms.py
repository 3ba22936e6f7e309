"""Batch norms whose running statistics follow the training."""

from __future__ import annotations

import torch
from torch.nn.modules.batchnorm import _BatchNorm

FOLLOW = (0.01, 0.5)
"""Momentum with which running statistics follow: averages of some 100 batches at most, and of two at least.
torch's default is 0.1."""


def let_statistics_follow(model: torch.nn.Module, momentum: float) -> int:
    """Set the momentum of batch norms whose own is outside of `FOLLOW`, and return how many these are.

    A momentum of None, the plain average of all batches since the statistics were reset, is outside as well.
    A norm that is frozen on purpose stays as it is: its momentum is 0, and its weight is not trained.
    """
    least, most = FOLLOW
    norms = [norm for norm in model.modules() if isinstance(norm, _BatchNorm) and norm.track_running_stats]
    slow = [norm for norm in norms if norm.momentum is None or not least <= norm.momentum <= most]
    slow = [norm for norm in slow if norm.momentum != 0 or _is_trained(norm)]
    for norm in slow:
        norm.momentum = momentum
    return len(slow)


def _is_trained(norm: _BatchNorm) -> bool:
    return any(parameter.requires_grad for parameter in norm.parameters())
