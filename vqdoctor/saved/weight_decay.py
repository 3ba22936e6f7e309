"""The effect of weight decay on a code without a gradient of its own, for a file and a live task alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXEMPT = "the retraining that wrote the file took weight decay off the codebook"
_EPSILON = 1e-8
"""Adam's: under this size a gradient no longer makes a full step."""
_SHORT = 0.1


def decays_adaptively(group: Mapping[str, Any]) -> bool:
    """Whether an optimizer with this parameter group divides the weight decay by the gradient's size.

    Adam and its kin in torch say so by a key of its own; in RMSprop and Adagrad there is no other way.
    """
    if "decoupled_weight_decay" in group:
        return group["decoupled_weight_decay"] is False
    return "alpha" in group or "initial_accumulator_value" in group


def lost_length(weight_decay: float, rate: float, updates: int, *, rms: float, adaptive: bool) -> float:
    """Return the share of its length that a code which is never chosen has lost.

    The decay multiplies it by 1 - rate × weight_decay every step. Where it passes through an adaptive
    optimizer it is the only gradient, so the step is the learning rate itself, however small the decay;
    the length before is then taken for what is left and what all steps together took.

    Args:
        weight_decay: the weight decay.
        rate: the learning rate.
        updates: the steps.
        rms: root mean square of the codebook's elements, as it is now.
        adaptive: whether the decay passes through the division by the gradient's size.
    """
    if adaptive:
        pull = weight_decay * rms
        taken = rate * updates * pull / (pull + _EPSILON)
        return taken / (taken + rms) if rms > 0 else 1.0
    return float(1 - (1 - min(1.0, rate * weight_decay)) ** updates)


def short_rows(norms: NDArray[np.float64]) -> int:
    """Return how many rows are under a tenth of the length of the longest."""
    return int(np.sum(norms < _SHORT * norms.max(initial=0.0)))
