"""What the fault bench asks of an implementation: how it is built, called, and where its codes are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from fault_bench.setup import Setup

Quantized = tuple[torch.Tensor, torch.Tensor]
"""z_q in the shape of z_e, and the VQ loss."""


@dataclass(kw_only=True, eq=False)
class Table:
    """The stored tensors of one codebook, as views [K, D], [K] and [K, D] that can be written."""

    codes: torch.Tensor
    counts: torch.Tensor | None = None
    sums: torch.Tensor | None = None

    @torch.no_grad()
    def write(self, codes: torch.Tensor, count: float, *, whole: bool = True) -> None:
        """Write all codes; with `whole` also the sums and counts that keep them."""
        self.codes.copy_(codes)
        if whole and self.counts is not None and self.sums is not None:
            self.counts.fill_(count)
            self.sums.copy_(codes * count)


@dataclass(frozen=True, kw_only=True)
class Implementation:
    """Somebody's quantizer.

    Attributes:
        name: how the table calls it.
        build: makes the layer.
        quantize: runs it on z_e [B, D, ...].
        tables: its codebooks.
        switches: settings that only some implementations have, which this one has.
        starts_itself: whether it initialises and revives its codes in its own forward pass.
        volatile: keys that an earlier version of the layer did not save, by their ends.
        kind: what moves its codebook: "ema", "gradient", or "none" where there is no table of codes.
        lacks: settings that mean nothing to it.
        has_loss: whether it returns a VQ loss.
        usual: settings of a healthy training with it, where they are not the common ones.
    """

    name: str
    build: Callable[[Setup], nn.Module]
    quantize: Callable[[nn.Module, torch.Tensor], Quantized]
    tables: Callable[[nn.Module], list[Table]]
    switches: frozenset[str]
    starts_itself: bool = False
    volatile: tuple[str, ...] = ()
    kind: str = "ema"
    lacks: frozenset[str] = frozenset()
    has_loss: bool = True
    usual: Mapping[str, Any] = field(default_factory=dict)


def as_map(z: torch.Tensor) -> torch.Tensor:
    """Return z_e as a feature map [B, D, H, W]."""
    return z if z.ndim == 4 else z.unsqueeze(2)


def nearest(vectors: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Return the nearest codes of vectors [N, D]."""
    distance = vectors.square().sum(1, keepdim=True) - 2 * vectors @ codes.t() + codes.square().sum(1)
    return distance.argmin(1)
