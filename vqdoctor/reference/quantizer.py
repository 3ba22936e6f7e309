"""The sound quantizer of the reference model: nearest code, and codes that follow the data by EMA."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from vqdoctor.vq.codebook import Codebook
from vqdoctor.vq.ema import divisor
from vqdoctor.vq.kmeans import nearest

EPSILON = 1e-5
"""Laplace smoothing of the EMA counts, as in most EMA quantizers."""


class Quantized(NamedTuple):
    """The outputs of a quantizer.

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


class EMAQuantizer(nn.Module):
    """A codebook in buffers, with the EMA counts and sums of the vectors that chose its codes.

    Attributes:
        SUMS: name of the buffer of the sums.
        num_codes: codes in the codebook, K.
        dim: dimension of a code, D.
        decay: EMA decay, d.
        embedding: the codebook, buffer [K, D].
        ema_cluster_size: EMA counts, buffer [K].
    """

    SUMS: ClassVar[str]
    embedding: torch.Tensor
    ema_cluster_size: torch.Tensor

    def __init__(self, codes: torch.Tensor, counts: torch.Tensor, sums: torch.Tensor, decay: float) -> None:
        super().__init__()
        self.num_codes, self.dim = codes.shape
        self.decay = decay
        self.register_buffer("embedding", codes)
        self.register_buffer("ema_cluster_size", counts)
        self.register_buffer(self.SUMS, sums)

    @property
    def sums(self) -> torch.Tensor:
        """EMA sums, buffer [K, D]."""
        return self.get_buffer(self.SUMS)

    def choose(self, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the nearest code of each vector, int64 [N], and how often each is chosen, float [K]."""
        indices, _ = nearest(vectors, self.embedding)
        return indices, torch.bincount(indices, minlength=self.num_codes).to(vectors.dtype)

    def compared(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return vectors [N, D] at the scale at which codes are placed among them."""
        return vectors

    @torch.no_grad()
    def average(self, vectors: torch.Tensor, indices: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Move the EMA counts and sums towards a batch's; return the smoothed counts, [K, 1]."""
        self.ema_cluster_size.lerp_(counts, 1.0 - self.decay)
        self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, indices, vectors), 1.0 - self.decay)
        return divisor(self.ema_cluster_size, EPSILON).unsqueeze(1)

    @property
    def codebook(self) -> Codebook[torch.Tensor]:
        """The buffers as one codebook, whose sums are written without smoothing: counts are far above it."""
        return Codebook(codes=self.embedding, counts=self.ema_cluster_size, sums=self.sums)

    @torch.no_grad()
    def set_codes(self, codes: torch.Tensor, counts: torch.Tensor) -> None:
        """Write the codebook [K, D] and its counts [K], and the sums that keep both at the next update."""
        self.codebook.write(torch.arange(self.num_codes), codes, counts)


def vectors_of(z_e: torch.Tensor) -> torch.Tensor:
    """Return z_e [B, D, H, W] as vectors [B·H·W, D]."""
    return z_e.permute(0, 2, 3, 1).reshape(-1, z_e.shape[1])


def as_map(vectors: torch.Tensor, z_e: torch.Tensor) -> torch.Tensor:
    """Return vectors [B·H·W, D] in the shape of z_e."""
    batch, dim, height, width = z_e.shape
    return vectors.view(batch, height, width, dim).permute(0, 3, 1, 2)


class VectorQuantizerEMA2D(EMAQuantizer):
    """Maps each position of [B, D, H, W] to its nearest code; the codes follow the data by EMA.

    In train mode a forward pass updates the buffers after it has chosen the codes (van den Oord et
    al. 2017, appendix A.1, as in zalando's notebook and vector-quantize-pytorch):

        counts <- d counts + (1 - d) n
        sums   <- d sums + (1 - d) (sum of the z_e of each code)
        codes  <- sums / smoothed counts

    The codes start from N(0, 1), the counts at one, and the sums as a copy of the codes.

    Attributes:
        straight_through: whether the gradient of z_q is copied to z_e.
    """

    SUMS = "ema_embedding_sum"

    def __init__(
        self, num_codes: int, dim: int, *, decay: float = 0.99, straight_through: bool = True
    ) -> None:
        codes = torch.randn(num_codes, dim)
        super().__init__(codes, torch.ones(num_codes), codes.clone(), decay)
        self.straight_through = straight_through

    def forward(self, z_e: torch.Tensor) -> Quantized:
        """Quantize z_e, float [B, D, H, W]."""
        vectors = vectors_of(z_e)
        indices, counts = self.choose(vectors)
        z_q = as_map(self.embedding[indices], z_e)
        if self.training:
            with torch.no_grad():
                smoothed = self.average(vectors, indices, counts)
                self.embedding.copy_(self.sums / smoothed)
        vq_loss = functional.mse_loss(z_e, z_q)
        if self.straight_through:
            z_q = z_e + (z_q - z_e).detach()
        return Quantized(z_q, indices.view(len(z_e), *z_e.shape[2:]), vq_loss, perplexity_of(counts))
