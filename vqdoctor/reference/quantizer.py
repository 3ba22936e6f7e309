"""The sound quantizer of the reference model: nearest code, and codes that follow the data by EMA."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from vqdoctor.vq.codebook import Codebook
from vqdoctor.vq.ema import divisor
from vqdoctor.vq.kmeans import nearest

EPSILON = 1e-5
"""Laplace smoothing of the EMA counts, as in most EMA quantizers."""


class Quantized(NamedTuple):
    """What a quantizer returns.

    Attributes:
        z_q: the chosen codes, float [B, D, H, W].
        indices: which codes they are, int64 [B, H, W].
        vq_loss: the commitment loss mean (z_e - z_q)^2, unweighted; the codebook has no loss of its own.
        perplexity: exp of the entropy of this batch's usage.
    """

    z_q: torch.Tensor
    indices: torch.Tensor
    vq_loss: torch.Tensor
    perplexity: torch.Tensor


def perplexity_of(counts: torch.Tensor) -> torch.Tensor:
    """Return exp of the entropy of the usage that counts [K] show."""
    shares = counts / counts.sum()
    return torch.exp(-torch.special.xlogy(shares, shares).sum())


class VectorQuantizerEMA2D(nn.Module):
    """Maps each position of [B, D, H, W] to its nearest code; the codes follow the data by EMA.

    In train mode a forward pass updates the buffers after it has chosen the codes (van den Oord et
    al. 2017, appendix A.1, as in zalando's notebook and vector-quantize-pytorch):

        counts <- d counts + (1 - d) n
        sums   <- d sums + (1 - d) (sum of the z_e of each code)
        codes  <- sums / smoothed counts

    Attributes:
        num_codes: codes in the codebook, K.
        dim: dimension of a code, D.
        decay: EMA decay, d.
        straight_through: whether the gradient of z_q is copied to z_e.
        embedding: the codebook, buffer [K, D], from N(0, 1).
        ema_cluster_size: EMA counts, buffer [K], starting at one.
        ema_embedding_sum: EMA sums, buffer [K, D], starting as a copy of the codebook.
    """

    embedding: torch.Tensor
    ema_cluster_size: torch.Tensor
    ema_embedding_sum: torch.Tensor

    def __init__(
        self, num_codes: int, dim: int, *, decay: float = 0.99, straight_through: bool = True
    ) -> None:
        super().__init__()
        self.num_codes = num_codes
        self.dim = dim
        self.decay = decay
        self.straight_through = straight_through
        self.register_buffer("embedding", torch.randn(num_codes, dim))
        self.register_buffer("ema_cluster_size", torch.ones(num_codes))
        self.register_buffer("ema_embedding_sum", self.embedding.clone())

    def forward(self, z_e: torch.Tensor) -> Quantized:
        """Quantize z_e, float [B, D, H, W]."""
        batch, dim, height, width = z_e.shape
        vectors = z_e.permute(0, 2, 3, 1).reshape(-1, dim)
        with torch.no_grad():
            indices, _ = nearest(vectors, self.embedding)
            z_q = self.embedding[indices]
            counts = torch.bincount(indices, minlength=self.num_codes).to(vectors.dtype)
            if self.training:
                self._follow(vectors, indices, counts)
        z_q = z_q.view(batch, height, width, dim).permute(0, 3, 1, 2)
        vq_loss = functional.mse_loss(z_e, z_q)
        if self.straight_through:
            z_q = z_e + (z_q - z_e).detach()
        return Quantized(z_q, indices.view(batch, height, width), vq_loss, perplexity_of(counts))

    def _follow(self, vectors: torch.Tensor, indices: torch.Tensor, counts: torch.Tensor) -> None:
        """Move the codes towards the means of the vectors that chose them."""
        sums = torch.zeros_like(self.ema_embedding_sum).index_add_(0, indices, vectors)
        self.ema_cluster_size.lerp_(counts, 1.0 - self.decay)
        self.ema_embedding_sum.lerp_(sums, 1.0 - self.decay)
        self.embedding.copy_(self.ema_embedding_sum / divisor(self.ema_cluster_size, EPSILON).unsqueeze(1))

    @torch.no_grad()
    def set_codes(self, codes: torch.Tensor, counts: torch.Tensor) -> None:
        """Write the codebook [K, D] and its counts [K], and the sums that keep both at the next update."""
        self.codebook.write(torch.arange(self.num_codes), codes, counts)

    @property
    def codebook(self) -> Codebook[torch.Tensor]:
        """The buffers as one codebook, whose sums are written without smoothing: counts are far above it."""
        return Codebook(codes=self.embedding, counts=self.ema_cluster_size, sums=self.ema_embedding_sum)
