"""The origins of a tensor, step by step, where each step was given a single tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

_ORIGIN = "_vqdoctor_origin"
"""Attribute of a tensor: the only other tensor that it was made of."""
_STEP = "_vqdoctor_step"
"""Attribute of a tensor beside its origin: how it was made of that one."""


def note_origin(made: torch.Tensor, of: torch.Tensor) -> None:
    """Note that a tensor was made of another one alone."""
    setattr(made, _ORIGIN, of)


def note_step(made: Iterable[torch.Tensor], step: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Note how tensors were made of their origin."""
    for tensor in made:
        setattr(tensor, _STEP, step)


def origins(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Return the tensor, then what it was made of, step by step, as far as each was made of one alone."""
    found = [tensor]
    while (made_of := getattr(found[-1], _ORIGIN, None)) is not None:
        found.append(made_of)
    return found


def changed_alike(made: torch.Tensor, of: torch.Tensor, other: torch.Tensor) -> torch.Tensor | None:
    """Return another tensor changed as one was made of its origin; None where that is not known.

    Args:
        made: the tensor.
        of: one of its origins.
        other: the tensor to change, of the origin's shape.
    """
    chain = origins(made)
    for tensor in reversed(chain[: next(i for i, t in enumerate(chain) if t is of)]):
        step: Callable[[torch.Tensor], torch.Tensor] | None = getattr(tensor, _STEP, None)
        if step is None:
            return None
        other = step(other)
    return other
