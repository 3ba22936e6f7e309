"""taming-transformers' VectorQuantizer: a codebook that the optimizer moves, and a commitment weight beta."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from fault_bench.ema import compared
from fault_bench.quantizer import Implementation, Quantized, Table, as_map, nearest
from fault_bench.setup import Setup


class VectorQuantizer(nn.Module):
    """Quantizes [B, D, H, W]."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup, self.beta = setup, setup.beta
        self.embedding = nn.Embedding(setup.codes, setup.dim)
        self.embedding.weight.data.uniform_(-1.0 / setup.codes, 1.0 / setup.codes)
        self.initialised = setup.flag_saved

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        z = z.permute(0, 2, 3, 1).contiguous()
        vectors = z.view(-1, self.setup.dim)
        if self.training and not self.initialised:
            self.initialised = True
            self.embedding.weight.data.copy_(sample(vectors, self.setup.codes))
        indices = nearest(compared(self.setup, vectors), self.embedding.weight)
        z_q = self.embedding(indices).view(z.shape)
        passed = z + (z_q - z).detach() if self.setup.straight_through else z_q
        looked_up = z_q if self.setup.codebook_trained else passed
        pull = functional.mse_loss(z, z_q.detach())
        follow = functional.mse_loss(looked_up, z.detach())
        loss = self.beta * pull + follow if self.setup.beta_on_encoder else pull + self.beta * follow
        if not self.setup.loss_has_gradient:  # the wrong operand of both terms is detached
            loss = loss.detach()
        return passed.permute(0, 3, 1, 2).contiguous(), loss, indices


def sample(vectors: torch.Tensor, codes: int) -> torch.Tensor:
    """Return as many of the vectors as there are codes, in a random order, some twice if they are too few."""
    order = torch.randperm(len(vectors)).repeat(-(-codes // len(vectors)))[:codes]
    return vectors.detach()[order]


def quantize(vq: nn.Module, z: torch.Tensor) -> Quantized:
    z_q, loss, _ = vq(as_map(z))
    return z_q.view(z.shape), loss


IMPLEMENTATION = Implementation(
    name="taming",
    build=VectorQuantizer,
    quantize=quantize,
    tables=lambda vq: [Table(codes=vq.embedding.weight.data)],
    kind="gradient",
    switches=frozenset(
        {
            "straight_through",
            "codebook_trained",
            "beta_on_encoder",
            "flag_saved",
            "codebook_decay",
            "beta",
        }
    ),
)
