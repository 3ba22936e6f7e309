"""zalandoresearch's notebook: an EMA that puts new Parameters in the old ones' place. Held out."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from fault_bench.ema import compared, divisor, written
from fault_bench.quantizer import Implementation, Quantized, Table, as_map, nearest
from fault_bench.setup import Setup
from fault_bench.taming import sample

EPSILON = 1e-5


class VectorQuantizerEMA(nn.Module):
    """Quantizes [B, D, H, W]."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup = setup
        self._embedding = nn.Embedding(setup.codes, setup.dim)
        self._embedding.weight.data.normal_()
        start = torch.ones if setup.counts_from_one else torch.zeros
        self.register_buffer("_ema_cluster_size", start(setup.codes))
        self._ema_w = nn.Parameter(self._embedding.weight.data.clone())
        self.initialised = setup.flag_saved

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inputs = inputs.permute(0, 2, 3, 1).contiguous()
        vectors = inputs.view(-1, self.setup.dim)
        if self.training and not self.initialised:
            self.initialised = True
            table(self).write(sample(vectors, self.setup.codes), 1.0)
        indices = nearest(compared(self.setup, vectors), self._embedding.weight)
        encodings = functional.one_hot(indices, self.setup.codes).float()
        quantized = torch.matmul(encodings, self._embedding.weight).view(inputs.shape)
        if (self.training or not self.setup.guarded) and self.setup.codebook_trained:
            decay = self.setup.decay
            counts = self._ema_cluster_size * decay + (1 - decay) * encodings.sum(0)
            total = counts.sum()
            self._ema_cluster_size = (counts + EPSILON) / (total + self.setup.codes * EPSILON) * total
            sums = self._ema_w * decay + (1 - decay) * encodings.t() @ vectors
            self._ema_w = nn.Parameter(sums.detach())
            by = divisor(self.setup, self._ema_cluster_size, encodings.sum(0), 0.0)
            self._embedding.weight = nn.Parameter(written(self.setup, (sums / by[:, None]).detach()))
        loss = functional.mse_loss(quantized.detach(), inputs)
        if self.setup.straight_through:
            quantized = inputs + (quantized - inputs).detach()
        used = encodings.mean(0)
        perplexity = torch.exp(-torch.sum(used * torch.log(used + 1e-10)))
        return loss, quantized.permute(0, 3, 1, 2).contiguous(), perplexity, encodings


def table(vq: VectorQuantizerEMA) -> Table:
    return Table(codes=vq._embedding.weight.data, counts=vq._ema_cluster_size, sums=vq._ema_w.data)


def quantize(vq: nn.Module, z: torch.Tensor) -> Quantized:
    loss, z_q, *_ = vq(as_map(z))
    return z_q.view(z.shape), loss


IMPLEMENTATION = Implementation(
    name="zalando",
    build=VectorQuantizerEMA,
    quantize=quantize,
    tables=lambda vq: [table(vq)],
    switches=frozenset(
        {
            "straight_through",
            "codebook_trained",
            "decay",
            "counts_from_one",
            "flag_saved",
            "guarded",
            "sums_written",
            "rule",
            "sphere",
        }
    ),
)
