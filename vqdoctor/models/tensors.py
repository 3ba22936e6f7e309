"""The tensors in what a user's code takes and gives, whatever holds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import torch


def tensors_of(value: object) -> Iterator[torch.Tensor]:
    """Yield the tensors in an argument or output: one, or tuples, lists, mappings and dataclasses of them."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_of(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_of(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_of(getattr(value, field.name))
