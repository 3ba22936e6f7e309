"""Checkpoints without files: numpy arrays behind the lazy tensors' interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest


class FakeTensor:
    """A stored tensor that counts how often its values were read."""

    def __init__(self, values: Any, dtype: str | None = None) -> None:
        self.values = np.asarray(values)
        self.shape: tuple[int, ...] = self.values.shape
        self.dtype = dtype or str(self.values.dtype)
        self.reads = 0

    def read(self) -> np.ndarray[Any, Any]:
        self.reads += 1
        return self.values


Fakes = dict[str, FakeTensor]


@pytest.fixture(scope="session")
def fake() -> Callable[..., Fakes]:
    """Return `fake(mapping, prefix="")`: shapes become numbered values, arrays and torch tensors stay."""

    def one(value: Any) -> FakeTensor:
        if isinstance(value, tuple):
            size = int(np.prod(value))
            return FakeTensor(np.arange(size, dtype=np.float32).reshape(value) + 1)
        return FakeTensor(value.detach().numpy() if hasattr(value, "detach") else value)

    def build(entries: Mapping[str, Any], prefix: str = "") -> Fakes:
        return {prefix + key: one(value) for key, value in entries.items()}

    return build
