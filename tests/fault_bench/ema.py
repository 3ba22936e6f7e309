"""The update of an EMA codebook, sound and in the forms in which people get it wrong."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from fault_bench.setup import Setup

_Divisor = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]


def _shares(counts: torch.Tensor, epsilon: float) -> torch.Tensor:
    return (counts + epsilon) / (counts.sum() + len(counts) * epsilon)


DIVISORS: dict[str, _Divisor] = {
    "sound": lambda counts, hits, epsilon: _shares(counts, epsilon) * counts.sum(),
    "total lost": lambda counts, hits, epsilon: _shares(counts, epsilon),
    "total twice": lambda counts, hits, epsilon: _shares(counts, epsilon) * counts.sum() ** 2,
    "none": lambda counts, hits, epsilon: torch.ones_like(counts),
    "multiplied": lambda counts, hits, epsilon: counts.sum() / (counts + epsilon),
    "batch": lambda counts, hits, epsilon: hits + 1,
    "one more": lambda counts, hits, epsilon: counts + 1,
}
"""From EMA counts [K], the last batch's counts [K] and the smoothing to what the sums are divided by, [K]."""


def divisor(setup: Setup, counts: torch.Tensor, hits: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Return what the sums are divided by, [K]."""
    return DIVISORS[setup.rule](counts, hits, epsilon)


def written(setup: Setup, codes: torch.Tensor) -> torch.Tensor:
    """Return the codes [K, D] as the layer writes them."""
    return functional.normalize(codes, dim=1) if setup.sphere in ("codes", "both") else codes


def compared(setup: Setup, vectors: torch.Tensor) -> torch.Tensor:
    """Return the vectors [N, D] as the layer looks them up."""
    return functional.normalize(vectors, dim=1) if setup.sphere == "vectors" else vectors


def commitment(setup: Setup, z_e: torch.Tensor, z_q: torch.Tensor) -> torch.Tensor:
    """Return the VQ loss of a codebook in a buffer: it has no gradient if the wrong operand is detached."""
    if setup.loss_has_gradient:
        return functional.mse_loss(z_q.detach(), z_e)
    return functional.mse_loss(z_q, z_e.detach())
