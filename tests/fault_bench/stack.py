"""A residual stack that a user wrote over taming's layer, as RQ-VAE recommenders do."""

from __future__ import annotations

import torch
from torch import nn

from fault_bench.quantizer import Implementation, Quantized, Table, as_map
from fault_bench.setup import Setup
from fault_bench.taming import VectorQuantizer

LEVELS = 3


class ResidualStack(nn.Module):
    """Quantizes [B, D, H, W] level by level."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup = setup
        self.levels = nn.ModuleList(VectorQuantizer(setup) for _ in range(LEVELS))

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        left, z_q, losses = z, torch.zeros_like(z), []
        for level in self.levels:
            codes, loss, _ = level(left)
            if self.setup.residual_subtracted:
                left = left - (codes.detach() if self.setup.residual_detached else codes)
            z_q = z_q + codes
            losses.append(loss)
        return z + (z_q - z).detach(), torch.stack(losses).sum()


def quantize(vq: nn.Module, z: torch.Tensor) -> Quantized:
    z_q, loss = vq(as_map(z))
    return z_q.view(z.shape), loss


IMPLEMENTATION = Implementation(
    name="residual stack",
    build=ResidualStack,
    quantize=quantize,
    tables=lambda vq: [Table(codes=level.embedding.weight.data) for level in vq.levels],
    kind="gradient",
    switches=frozenset({"residual_detached", "residual_subtracted", "beta_on_encoder", "beta"}),
)
