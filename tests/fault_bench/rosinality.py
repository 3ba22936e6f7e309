"""rosinality's VQ-VAE-2 layer: buffers [D, K] that its own forward pass writes."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from fault_bench.ema import commitment, compared, divisor, written
from fault_bench.quantizer import Implementation, Quantized, Table, as_map, nearest
from fault_bench.setup import Setup
from fault_bench.taming import sample

EPSILON = 1e-5


class Quantize(nn.Module):
    """Quantizes [B, H, W, D]."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup = setup
        embed = torch.randn(setup.dim, setup.codes)
        if setup.one_writer:
            self.register_buffer("embed", embed)
        else:
            self.embed = nn.Parameter(embed)
        start = torch.ones if setup.counts_from_one else torch.zeros
        self.register_buffer("cluster_size", start(setup.codes))
        self.register_buffer("embed_avg", embed.clone())
        self.initialised = setup.flag_saved

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        vectors = inputs.reshape(-1, self.setup.dim)
        if self.training and not self.initialised:
            self.initialised = True
            table(self).write(sample(vectors, self.setup.codes), 1.0)
        indices = nearest(compared(self.setup, vectors), self.embed.t())
        z_q = functional.embedding(indices.view(inputs.shape[:-1]), self.embed.t())
        loss = commitment(self.setup, inputs, z_q)
        if not self.setup.one_writer:
            loss = loss + functional.mse_loss(z_q, inputs.detach())
        if self.training or not self.setup.guarded:
            self._follow(vectors.detach(), indices)
        if self.setup.straight_through:
            z_q = inputs + (z_q - inputs).detach()
        return z_q, loss, indices

    @torch.no_grad()
    def _follow(self, vectors: torch.Tensor, indices: torch.Tensor) -> None:
        if not self.setup.codebook_trained:
            return
        if self.setup.threshold:
            self._replace(vectors)
        onehot = functional.one_hot(indices, self.setup.codes).to(vectors.dtype)
        self.cluster_size.lerp_(onehot.sum(0).float(), 1 - self.setup.decay)
        self.embed_avg.lerp_((vectors.t() @ onehot).float(), 1 - self.setup.decay)
        by = divisor(self.setup, self.cluster_size, onehot.sum(0), EPSILON)
        self.embed.data.copy_(written(self.setup, (self.embed_avg / by).t()).t())

    def _replace(self, vectors: torch.Tensor) -> None:
        """Put vectors of the batch in the place of codes that hardly anything chooses."""
        dead = (self.cluster_size < self.setup.threshold).nonzero().flatten()
        chosen = vectors[torch.randperm(len(vectors))[: len(dead)]].t()
        dead = dead[: chosen.shape[1]]
        self.embed.data[:, dead] = chosen
        if self.setup.whole_writes:
            self.cluster_size[dead] = self.setup.threshold
            self.embed_avg[:, dead] = chosen * self.setup.threshold


def table(vq: Quantize) -> Table:
    return Table(codes=vq.embed.data.t(), counts=vq.cluster_size, sums=vq.embed_avg.t())


def quantize(vq: nn.Module, z: torch.Tensor) -> Quantized:
    z_q, loss, _ = vq(as_map(z).permute(0, 2, 3, 1))
    return z_q.permute(0, 3, 1, 2).reshape(z.shape), loss


IMPLEMENTATION = Implementation(
    name="rosinality",
    build=Quantize,
    quantize=quantize,
    tables=lambda vq: [table(vq)],
    switches=frozenset(
        {
            "straight_through",
            "codebook_trained",
            "one_writer",
            "decay",
            "counts_from_one",
            "flag_saved",
            "guarded",
            "threshold",
            "whole_writes",
            "sums_written",
            "rule",
            "sphere",
            "loss_has_gradient",
        }
    ),
)
