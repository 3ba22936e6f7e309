"""The vectors inside a layer's input, whatever the axis that their dimension stands on."""

from __future__ import annotations

import torch


def channel_axis(shape: tuple[int, ...], dim: int, indices: tuple[int, ...] | None = None) -> int:
    """Return the axis of z_e that holds its vectors' elements.

    Without that axis z_e's shape is the indices' shape, which decides; else the axis is of length
    `dim`; else it is the last, which VQ libraries default to. Of two that fit, the last wins.
    """
    axes = range(1, len(shape)) if len(shape) > 1 else range(len(shape))
    fitting = [axis for axis in axes if shape[:axis] + shape[axis + 1 :] == indices]
    sized = [axis for axis in fitting or axes if shape[axis] == dim]
    return (sized or fitting or list(axes))[-1]


def rows(tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """Return [B, ..., D, ...] as [B, positions, D], with `axis` moved last."""
    moved = tensor.movedim(axis, -1)
    return moved.reshape(moved.shape[0], -1, moved.shape[-1])


def unrows(vectors: torch.Tensor, shape: torch.Size, axis: int) -> torch.Tensor:
    """Return [B, positions, D] in the shape that `rows` was given: its inverse."""
    moved = [size for i, size in enumerate(shape) if i != axis] + [shape[axis]]
    return vectors.reshape(moved).movedim(-1, axis)
