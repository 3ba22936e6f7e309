"""A live model's tensors as a layout sees those of a file."""

from __future__ import annotations

from typing import Any

import torch


class Stored:
    """A live tensor as a layout sees a stored one."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.shape = tuple(tensor.shape)
        self.dtype = str(tensor.dtype).removeprefix("torch.")
        self.storage_id = tensor.untyped_storage().data_ptr()
        self.offset, self.strides = tensor.storage_offset(), tensor.stride()
        self.tensor = tensor

    def read(self) -> Any:
        values = self.tensor.detach()
        return (values.float() if values.dtype is torch.bfloat16 else values).numpy()
