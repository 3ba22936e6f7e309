"""The vectors inside a layer's input, whatever the axis of their elements."""

from __future__ import annotations

import pytest
import torch

from vqdoctor.capture.vectors import channel_axis, rows, unrows


@pytest.mark.parametrize(
    ("shape", "dim", "indices", "axis"),
    [
        ((2, 5, 8), 8, (2, 5), 2),
        ((2, 8, 5), 8, (2, 5), 1),
        ((2, 8, 4, 4), 8, (2, 4, 4), 1),
        ((2, 8, 8, 8), 8, None, 3),
        ((2, 8, 8, 8), 8, (2, 8, 8), 3),
        ((7, 8), 8, (7,), 1),
        ((2, 5, 9), 8, (2, 5), 2),
        ((2, 8, 5, 5), 4, (2, 5, 5, 2), 1),
        ((2, 9, 5, 5), 8, (50,), 1),
        ((50, 16, 4, 4), 16, (800, 4), 1),  # flat, with an axis of levels
        ((2, 9, 5, 5), 8, None, 1),
    ],
)
def test_channel_axis(shape: tuple[int, ...], dim: int, indices: tuple[int, ...] | None, axis: int) -> None:
    assert channel_axis(shape, dim, indices) == axis


def test_of_axes_of_one_length_the_one_along_which_codes_repeat() -> None:
    codes = torch.randn(5, 8)[torch.randint(5, (2, 8, 8))]
    assert channel_axis((2, 8, 8, 8), 8, (128,), codes) == 3
    assert channel_axis((2, 8, 8, 8), 8, (128,), codes.permute(0, 3, 1, 2)) == 1
    assert channel_axis((2, 6, 8), 6, None, torch.randn(2, 6, 12)) == 2


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_unrows_inverts_rows(axis: int) -> None:
    tensor = torch.randn(2, 3, 4, 5)
    assert torch.equal(unrows(rows(tensor, axis), tensor.shape, axis), tensor)
