"""The vectors inside a layer's input, whichever axis their dimension is on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

_ENOUGH = 4096
"""Vectors that are compared to tell a channel axis from another one of its length."""


def channel_axis(
    shape: tuple[int, ...],
    dim: int,
    indices: tuple[int, ...] | None = None,
    z_q: torch.Tensor | None = None,
) -> int:
    """Return the axis of z_e that holds its vectors' elements.

    Where z_q's shape differs in one axis, it is that one. Else, without the axis z_e's shape is the
    indices' shape, apart from an axis of heads; or else there are as many indices as vectors. Of several
    axes that fit, those of length `dim` win, and of these the one along which `z_q` repeats itself most,
    as only codes do; without z_q the last. If no axis fits, it is the last, the default of VQ
    libraries, or axis 1 of an image, as in torch.
    """
    axes = list(range(1, len(shape)) if len(shape) > 1 else range(len(shape)))
    if z_q is not None and z_q.ndim == len(shape):
        differing = [axis for axis in axes if z_q.shape[axis] != shape[axis]]
        if len(differing) == 1:
            return differing[0]
    fitting = _fitting(shape, axes, indices)
    sized = [axis for axis in fitting or axes if shape[axis] == dim]
    if not (sized or fitting):
        return 1 if len(shape) >= 4 else axes[-1]
    chosen = sized or fitting
    if len(chosen) > 1 and z_q is not None and z_q.shape == shape:
        return min(reversed(chosen), key=lambda axis: _distinct(z_q, axis))
    return chosen[-1]


def _fitting(shape: tuple[int, ...], axes: list[int], indices: tuple[int, ...] | None) -> list[int]:
    """Return the axes without which z_e has as many positions as there are indices."""
    if indices is None:
        return []
    positions = {axis: shape[:axis] + shape[axis + 1 :] for axis in axes}
    by_head = [indices[:head] + indices[head + 1 :] for head in range(1, len(indices))]
    return (
        [axis for axis in axes if positions[axis] == indices]
        or [axis for axis in axes if positions[axis] in by_head]
        or [axis for axis in axes if math.prod(positions[axis]) in map(math.prod, by_head)]
        or [axis for axis in axes if math.prod(positions[axis]) == math.prod(indices)]
    )


def _distinct(tensor: torch.Tensor, axis: int) -> int:
    vectors = rows(tensor.detach(), axis).flatten(0, 1)[:_ENOUGH].float()
    step = vectors.square().mean().sqrt().clamp_min(1e-12) * 1e-3  # rotated codes are equal up to rounding
    return len(torch.unique((vectors / step).round(), dim=0))


def rows(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """Return [B, ..., D, ...] as [B, positions, D], with `axis` moved last."""
    moved = tensor.movedim(axis, -1)
    return moved.reshape(moved.shape[0], -1, moved.shape[-1])


def unrows(vectors: torch.Tensor, shape: Sequence[int], axis: int) -> torch.Tensor:
    """Return [B, positions, D] in the shape that `rows` was given: its inverse."""
    moved = [size for i, size in enumerate(shape) if i != axis] + [shape[axis]]
    return vectors.reshape(moved).movedim(-1, axis)


def by_position(indices: torch.Tensor, positions: Sequence[int]) -> torch.Tensor | None:
    """Return a layer's indices as [B, positions, heads]; None if they are not as many for each vector.

    Args:
        indices: integers of any shape: that of the positions, perhaps with an axis of heads, or flat.
        positions: z_e's shape without its channel axis, (B, ...).
    """
    vectors = math.prod(positions)
    heads, rest = divmod(indices.numel(), vectors) if vectors else (0, 1)
    if rest or heads < 1:
        return None
    for axis in reversed(range(indices.ndim)):
        if tuple(indices.shape[:axis] + indices.shape[axis + 1 :]) == tuple(positions):
            indices = indices.movedim(axis, -1)
            break
    return indices.reshape(positions[0], -1, heads)
