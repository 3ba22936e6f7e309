"""The moments of a checkpoint's optimizer, after the model beside it was retrained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vqdoctor.checkpoint import LazyTensor
from vqdoctor.models.tensors import to_numpy
from vqdoctor.saved.optimizer import SavedOptimizer


def new_moments(
    saved: Sequence[SavedOptimizer], optimizers: Sequence[torch.optim.Optimizer]
) -> dict[str, NDArray[np.generic]]:
    """Return the file's optimizer tensors by key, with the values that belong to the retrained model.

    Where a saved optimizer lists the same parameters in the same order, they are the retraining's own.
    Else nothing that was remembered is true any more, and all is zero, as at the start.
    """
    found: dict[str, NDArray[np.generic]] = {}
    for one in saved:
        own = next((own for own in map(_listed, optimizers) if _fits(one, [p for p, _ in own])), ())
        for number, slot in enumerate(one.slots):
            state = own[number][1] if own else {}
            for role, tensor in slot.state.items():
                if isinstance(tensor, LazyTensor):
                    value = state.get(role)
                    if not isinstance(value, torch.Tensor) or tuple(value.shape) != tensor.shape:
                        value = torch.zeros(tensor.shape)
                    found[tensor.key] = to_numpy(value)
    return found


def _listed(optimizer: torch.optim.Optimizer) -> list[tuple[torch.Tensor, Mapping[str, Any]]]:
    """Return the parameters of an optimizer in its order, each with its state."""
    return [(p, optimizer.state.get(p, {})) for group in optimizer.param_groups for p in group["params"]]


def _fits(saved: SavedOptimizer, own: Sequence[torch.Tensor]) -> bool:
    """Whether a saved optimizer lists parameters of these shapes, as far as it shows them."""
    return len(saved.slots) == len(own) and all(
        slot.shape in (None, tuple(p.shape)) for slot, p in zip(saved.slots, own, strict=True)
    )
