"""The tensors in what a user's code takes and gives, whatever holds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


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


def places(
    value: object, told: Callable[[torch.Tensor], object], at: str = ""
) -> Iterator[tuple[str, object]]:
    """Yield each place in a batch with the function's answer for its tensor, or else the value as text."""
    if isinstance(value, torch.Tensor):
        yield at, told(value)
    elif isinstance(value, tuple | list):
        for number, item in enumerate(value):
            yield from places(item, told, f"{at}[{number}]")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from places(item, told, f"{at}[{key!r}]")
    else:
        yield at, repr(value)


def mapped(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return a batch with each tensor changed: one, or tuples, lists and dicts of them.

    Anything else stays as it is: it is the own affair of the Task.
    """
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(item, change) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(mapped(item, change) for item in value)
    if type(value) is dict:
        return {key: mapped(item, change) for key, item in value.items()}
    return value


def to_numpy(tensor: torch.Tensor) -> NDArray[np.generic]:
    """Return the values of a tensor exactly; numpy lacks the short floats, whose values come as float32."""
    own = tensor.detach().cpu()
    return (own.float() if own.is_floating_point() and own.itemsize < 4 else own).numpy()


def samples_of(batch: object) -> int | None:
    """Return the samples of a batch, by the first axis of all its tensors; None where it does not show."""
    sizes = {len(tensor) for tensor in tensors_of(batch) if tensor.ndim}
    return sizes.pop() if len(sizes) == 1 and _plain(batch) else None


def _plain(batch: object) -> bool:
    """Whether a batch is tensors, in tuples, lists and dicts, and perhaps single values beside them."""
    if isinstance(batch, tuple | list):
        return bool(list(tensors_of(batch))) and all(map(_plain, batch))
    if type(batch) is dict:
        return all(map(_plain, batch.values()))
    return batch is None or isinstance(batch, torch.Tensor | str | int | float)
