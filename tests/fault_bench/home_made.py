"""EMA layers as people write them for themselves, under the names and with the starts of public code.

Sources of the names: wilson1yan/VideoGPT and evolutionaryscale/esm (`embeddings`, `N`, `z_avg`),
bshall/VectorQuantizedVAE (`embedding`, `ema_count`, `ema_weight`), kakaobrain/rq-vae-transformer (`weight`
with a row of padding, `cluster_size_ema`, `embed_ema`), clementchadebec/benchmark_VAE (`embeddings`,
`cluster_size`, `ema_embed`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from fault_bench.ema import commitment, compared, divisor, written
from fault_bench.quantizer import Implementation, Quantized, Table, as_map, nearest
from fault_bench.setup import Setup


@dataclass(frozen=True, kw_only=True)
class Style:
    """How somebody wrote an EMA layer.

    Attributes:
        codes: name of the codebook, [K, D].
        counts: name of the EMA counts, [K].
        sums: name of the EMA sums, [K, D].
        epsilon: smoothing of the counts.
        start: value that the counts start from.
        sums_from_zero: whether the sums start from zero, and not as the codes.
        written_back: whether the counts are stored as they were smoothed.
        padding: rows of the codebook that are never looked up, behind the others.
    """

    codes: str
    counts: str
    sums: str
    epsilon: float = 1e-5
    start: float = 0.0
    sums_from_zero: bool = False
    written_back: bool = False
    padding: int = 0


STYLES = {
    "VideoGPT": Style(codes="embeddings", counts="N", sums="z_avg", epsilon=1e-7),
    "bshall": Style(codes="embedding", counts="ema_count", sums="ema_weight", written_back=True),
    "RQ-VAE": Style(codes="weight", counts="cluster_size_ema", sums="embed_ema", padding=1),
    "pythae": Style(codes="embeddings", counts="cluster_size", sums="ema_embed"),
    "first model": Style(
        codes="embedding", counts="ema_cluster_size", sums="ema_cluster_sum", sums_from_zero=True
    ),
    "encodec": Style(codes="embed", counts="cluster_size", sums="embed_avg"),
    "own": Style(codes="codebook", counts="usage_ema", sums="codes_ema", epsilon=1e-10, start=1.0),
}


class HomeMade(nn.Module):
    """Quantizes [B, H, W, D]."""

    def __init__(self, style: Style, setup: Setup) -> None:
        super().__init__()
        self.style, self.setup = style, setup
        codes = torch.randn(setup.codes + style.padding, setup.dim)
        sums = codes[: setup.codes].clone()
        self.register_buffer(style.codes, codes)
        self.register_buffer(style.counts, torch.full((setup.codes,), style.start))
        self.register_buffer(style.sums, torch.zeros_like(sums) if style.sums_from_zero else sums)

    def table(self) -> Table:
        """Return the stored tensors, without the padding."""
        codes, counts, sums = (
            self.get_buffer(name) for name in (self.style.codes, self.style.counts, self.style.sums)
        )
        return Table(codes=codes[: self.setup.codes], counts=counts, sums=sums)

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        vectors = inputs.reshape(-1, self.setup.dim)
        table = self.table()
        indices = nearest(compared(self.setup, vectors), table.codes)
        z_q = functional.embedding(indices.view(inputs.shape[:-1]), table.codes)
        if self.training:
            self._follow(table, vectors.detach(), indices)
        loss = commitment(self.setup, inputs, z_q)
        return inputs + (z_q - inputs).detach(), loss, indices

    @torch.no_grad()
    def _follow(self, table: Table, vectors: torch.Tensor, indices: torch.Tensor) -> None:
        assert table.counts is not None and table.sums is not None
        hits = torch.bincount(indices, minlength=self.setup.codes).to(vectors.dtype)
        new = torch.zeros_like(table.sums).index_add_(0, indices, vectors)
        table.counts.lerp_(hits, 1 - self.setup.decay)
        table.sums.lerp_(new, 1 - self.setup.decay)
        by = divisor(self.setup, table.counts, hits, self.style.epsilon)
        if self.style.written_back:
            table.counts.copy_(by)
        table.codes.copy_(written(self.setup, table.sums / by[:, None]))


def quantize(vq: nn.Module, z: torch.Tensor) -> Quantized:
    z_q, loss, _ = vq(as_map(z).permute(0, 2, 3, 1))
    return z_q.permute(0, 3, 1, 2).reshape(z.shape), loss


IMPLEMENTATIONS = tuple(
    Implementation(
        name=f"{name} style",
        build=partial(HomeMade, style),
        quantize=quantize,
        tables=lambda vq: [vq.table()],
        switches=frozenset({"rule", "sphere", "loss_has_gradient"}),
    )
    for name, style in STYLES.items()
)
