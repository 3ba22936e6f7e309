"""Two VQ layers with a sound estimator and an unsound EMA, as the model that this project began with had.

Both follow the published EMA rule (van den Oord et al. 2017, appendix A.1) but for one step, and no
straight-through estimator, loss weight, warm-up or revival makes up for it.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from vqdoctor.reference.quantizer import EPSILON, Quantized, perplexity_of
from vqdoctor.vq.codebook import Codebook
from vqdoctor.vq.ema import divisor
from vqdoctor.vq.kmeans import nearest

COMMITMENT = 0.4
"""Weight of the commitment term in the layers' own VQ loss."""
RARE_COUNT = 1e-3
"""EMA count under which `UnnormalisedEMA` moves a code to a vector of the batch."""


class UnnormalisedEMA(nn.Module):
    """Layer A: the smoothed counts lose their total, so every code is as many times too long.

        codes <- sums / ((counts + eps) / (total + K eps))      where a sound rule multiplies by total again

    Vectors are put on the unit sphere before the lookup; the nearest code is the Euclidean one. Codes whose
    count falls under 1e-3 take a vector of the batch, and their sums and counts stay as they are.

    Attributes:
        embedding: the codebook, buffer [K, D], of unit length at the start.
        ema_cluster_size: EMA counts, buffer [K], starting at zero.
        ema_cluster_sum: EMA sums, buffer [K, D], starting at zero.
        sound: whether the total is multiplied back: the healthy twin.
    """

    embedding: torch.Tensor
    ema_cluster_size: torch.Tensor
    ema_cluster_sum: torch.Tensor

    def __init__(self, num_codes: int, dim: int, *, decay: float = 0.95, sound: bool = False) -> None:
        super().__init__()
        self.num_codes = num_codes
        self.decay = decay
        self.sound = sound
        self.register_buffer("embedding", functional.normalize(torch.randn(num_codes, dim), dim=1))
        self.register_buffer("ema_cluster_size", torch.zeros(num_codes))
        self.register_buffer("ema_cluster_sum", torch.zeros(num_codes, dim))

    def forward(self, z_e: torch.Tensor) -> Quantized:
        """Quantize z_e, float [B, D, H, W]."""
        z_e = functional.normalize(z_e, dim=1)
        vectors = _vectors(z_e)
        indices, counts = _choose(vectors, self.embedding)
        z_q = _as_map(self.embedding[indices], z_e)
        if self.training:
            with torch.no_grad():
                _average(self.ema_cluster_size, self.ema_cluster_sum, vectors, indices, counts, self.decay)
                smoothed = divisor(self.ema_cluster_size, EPSILON)
                if not self.sound:
                    smoothed = smoothed / self.ema_cluster_size.sum()
                self.embedding.copy_(self.ema_cluster_sum / smoothed.unsqueeze(1))
                rare = (self.ema_cluster_size < RARE_COUNT).nonzero().squeeze(1)
                drawn = torch.randint(len(vectors), (len(rare),), device=vectors.device)
                self.embedding[rare] = vectors[drawn]
        vq_loss = functional.mse_loss(z_e.detach(), z_q) + COMMITMENT * functional.mse_loss(z_e, z_q.detach())
        return Quantized(z_e + (z_q - z_e).detach(), _positions(indices, z_e), vq_loss, perplexity_of(counts))

    @property
    def codebook(self) -> Codebook[torch.Tensor]:
        """The buffers as one codebook."""
        return Codebook(codes=self.embedding, counts=self.ema_cluster_size, sums=self.ema_cluster_sum)

    @torch.no_grad()
    def set_codes(self, codes: torch.Tensor, counts: torch.Tensor) -> None:
        """Write the codebook [K, D] and its counts [K], and the sums that belong to them."""
        self.codebook.write(torch.arange(self.num_codes), codes, counts)


class SphereCodes(nn.Module):
    """Layer B: codes are put on the unit sphere after each update, vectors are not.

    The VQ loss is `COMMITMENT * mse(sg z_e, z_q)`, and z_q comes from a buffer: it is added to the task loss
    and has no gradient at all.

    Attributes:
        embedding: the codebook, buffer [K, D], of unit length.
        ema_cluster_size: EMA counts, buffer [K], starting at one.
        ema_embed_sum: EMA sums, buffer [K, D], starting as a copy of the codebook.
        steps: updates, buffer [].
        dead_code_threshold: a number of steps, which nothing uses while `enable_dead_code_refresh` is off.
        sound: whether codes keep their own length and the loss pulls at z_e: the healthy twin.
    """

    embedding: torch.Tensor
    ema_cluster_size: torch.Tensor
    ema_embed_sum: torch.Tensor
    steps: torch.Tensor

    def __init__(self, num_codes: int, dim: int, *, decay: float = 0.95, sound: bool = False) -> None:
        super().__init__()
        self.num_codes = num_codes
        self.decay = decay
        self.sound = sound
        self.dead_code_threshold = 100
        self.enable_dead_code_refresh = False
        self.register_buffer("embedding", functional.normalize(torch.randn(num_codes, dim), dim=1))
        self.register_buffer("ema_cluster_size", torch.ones(num_codes))
        self.register_buffer("ema_embed_sum", self.embedding.clone())
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, z_e: torch.Tensor) -> Quantized:
        """Quantize z_e, float [B, D, H, W]."""
        vectors = _vectors(z_e)
        indices, counts = _choose(vectors, self.embedding)
        z_q = _as_map(self.embedding[indices], z_e)
        if self.training:
            with torch.no_grad():
                _average(self.ema_cluster_size, self.ema_embed_sum, vectors, indices, counts, self.decay)
                means = self.ema_embed_sum / divisor(self.ema_cluster_size, EPSILON).unsqueeze(1)
                self.embedding.copy_(means if self.sound else functional.normalize(means, dim=1))
                self.steps += 1
        held = z_e if self.sound else z_e.detach()
        vq_loss = COMMITMENT * functional.mse_loss(held, z_q)
        return Quantized(z_e + (z_q - z_e).detach(), _positions(indices, z_e), vq_loss, perplexity_of(counts))

    @property
    def codebook(self) -> Codebook[torch.Tensor]:
        """The buffers as one codebook."""
        return Codebook(codes=self.embedding, counts=self.ema_cluster_size, sums=self.ema_embed_sum)

    @torch.no_grad()
    def set_codes(self, codes: torch.Tensor, counts: torch.Tensor) -> None:
        """Write the codebook [K, D] and its counts [K], and the sums that belong to them."""
        self.codebook.write(torch.arange(self.num_codes), codes, counts)
        if not self.sound:
            self.embedding.copy_(functional.normalize(self.embedding, dim=1))


def _vectors(z_e: torch.Tensor) -> torch.Tensor:
    """Return z_e [B, D, H, W] as vectors [B·H·W, D]."""
    return z_e.permute(0, 2, 3, 1).reshape(-1, z_e.shape[1])


def _as_map(vectors: torch.Tensor, z_e: torch.Tensor) -> torch.Tensor:
    """Return vectors [B·H·W, D] in the shape of z_e."""
    batch, dim, height, width = z_e.shape
    return vectors.view(batch, height, width, dim).permute(0, 3, 1, 2)


def _positions(indices: torch.Tensor, z_e: torch.Tensor) -> torch.Tensor:
    return indices.view(z_e.shape[0], *z_e.shape[2:])


@torch.no_grad()
def _choose(vectors: torch.Tensor, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the nearest code of each vector, int64 [N], and how often each is chosen, float [K]."""
    indices, _ = nearest(vectors, codes)
    return indices, torch.bincount(indices, minlength=len(codes)).to(vectors.dtype)


def _average(
    counts: torch.Tensor,
    sums: torch.Tensor,
    vectors: torch.Tensor,
    indices: torch.Tensor,
    chosen: torch.Tensor,
    decay: float,
) -> None:
    """Move EMA counts [K] and sums [K, D], in place, towards those of a batch."""
    counts.lerp_(chosen, 1.0 - decay)
    sums.lerp_(torch.zeros_like(sums).index_add_(0, indices, vectors), 1.0 - decay)
