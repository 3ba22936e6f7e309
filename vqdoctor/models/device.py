"""Choosing the device of an examination or a training, and moving batches to it."""

from __future__ import annotations

import torch

from vqdoctor.core.errors import UserError
from vqdoctor.models.task import Batch


def resolve(name: str) -> torch.device:
    """Return the device called `name`; "auto" is CUDA, else MPS, else the CPU.

    Raises:
        UserError: if there is no such device on this machine.
    """
    have = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in have.items() if there))
    kind = name.partition(":")[0]
    if not have.get(kind, False):
        there = ", ".join(kind for kind, there in have.items() if there)
        raise UserError(f"there is no device {name!r} here", f"there is {there}")
    return torch.device(name)


def moved(batch: Batch, device: torch.device) -> Batch:
    """Return a batch with its tensors on a device.

    Anything but a tensor, tuple, list or dict stays the own affair of the Task.
    """
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(moved(item, device) for item in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(moved(item, device) for item in batch)
    if type(batch) is dict:
        return {key: moved(item, device) for key, item in batch.items()}
    return batch
