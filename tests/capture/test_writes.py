"""Writes to a codebook inside a pass: what was put back, and what was only given another length."""

import torch
from torch.nn import functional

from vqdoctor.capture.writes import Writes


def codes() -> torch.Tensor:
    return functional.normalize(torch.randn(32, 8, generator=torch.Generator().manual_seed(0)), dim=1)


def undone(first: torch.Tensor, second: torch.Tensor) -> int:
    """Return the rows that are undone by two writes after one another."""
    table = codes()
    with Writes({"vq": table}) as writes:
        table.copy_(first)
        table.copy_(second)
    return writes.undone("vq")


def test_rows_that_a_later_write_takes_back_are_undone() -> None:
    moved = codes()
    moved[:5] = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    assert undone(moved, codes()) == 5
    assert undone(moved, moved) == 0


def test_an_update_that_is_normalised_afterwards_is_not_undone() -> None:
    means = 0.6 * (codes() + 0.01 * torch.randn(32, 8, generator=torch.Generator().manual_seed(1)))
    assert undone(means, functional.normalize(means, dim=1)) == 0
