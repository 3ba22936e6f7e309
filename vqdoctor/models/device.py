"""Choosing the device of an examination or a training, and moving batches to it."""

from __future__ import annotations

import torch

from vqdoctor.core.errors import UserError
from vqdoctor.models.task import Batch
from vqdoctor.models.tensors import mapped


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
    return mapped(batch, lambda tensor: tensor.to(device))
