"""The moments of a checkpoint's optimizer, after the model beside it was retrained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from vqdoctor.checkpoint import LazyTensor
from vqdoctor.saved.optimizer import SavedOptimizer


def new_moments(
    saved: Sequence[SavedOptimizer], optimizer: torch.optim.Optimizer
) -> dict[str, NDArray[np.generic]]:
    """Return the file's optimizer tensors by key, with the values that belong to the retrained model.

    Where a saved optimizer lists the same parameters in the same order, they are the retraining's own.
    Else nothing that was remembered is true any more, and all is zero, as at the start.
    """
    own = [p for group in optimizer.param_groups for p in group["params"]]
    found: dict[str, NDArray[np.generic]] = {}
    for one in saved:
        shapes = [slot.shape for slot in one.slots]
        same = len(shapes) == len(own) and all(
            shape is None or shape == tuple(p.shape) for shape, p in zip(shapes, own, strict=True)
        )
        for number, slot in enumerate(one.slots):
            state = optimizer.state.get(own[number], {}) if same else {}
            for role, tensor in slot.state.items():
                if isinstance(tensor, LazyTensor):
                    value = state.get(role)
                    if not isinstance(value, torch.Tensor) or tuple(value.shape) != tensor.shape:
                        value = torch.zeros(tensor.shape)
                    value = value.detach().cpu()
                    found[tensor.key] = (value.float() if value.is_floating_point() else value).numpy()
    return found
