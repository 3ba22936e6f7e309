"""Two VQ layers with a sound estimator and an unsound EMA, as the model that this project began with had.

Both follow the published EMA rule (van den Oord et al. 2017, appendix A.1) except in one step, and no
straight-through estimator, loss weight, warm-up or revival makes up for it.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from vqdoctor.reference.quantizer import EMAQuantizer, Quantized, as_map, perplexity_of, vectors_of

COMMITMENT = 0.4
"""Weight of the commitment term in the layers' own VQ loss."""
RARE_COUNT = 1e-3
"""EMA count under which `UnnormalisedEMA` moves a code to a vector of the batch."""


class UnnormalisedEMA(EMAQuantizer):
    """Layer A: the smoothed counts lose their total, so every code is as many times too long.

        codes <- sums / ((counts + eps) / (total + K eps))      where a sound rule multiplies by total again

    Vectors are put on the unit sphere before the lookup; the nearest code is the Euclidean one. Codes whose
    count falls under 1e-3 take a vector of the batch, and their sums and counts stay as they are.

    The codes start with unit length, counts and sums at zero.

    Attributes:
        sound: whether the total is multiplied back: the healthy twin.
    """

    SUMS = "ema_cluster_sum"

    def __init__(self, num_codes: int, dim: int, *, decay: float = 0.95, sound: bool = False) -> None:
        codes = functional.normalize(torch.randn(num_codes, dim), dim=1)
        super().__init__(codes, torch.zeros(num_codes), torch.zeros(num_codes, dim), decay)
        self.sound = sound

    def compared(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return vectors [N, D] on the sphere; the unsound layer places its codes among them as they are."""
        return functional.normalize(vectors, dim=1) if self.sound else vectors

    def forward(self, z_e: torch.Tensor) -> Quantized:
        """Quantize z_e, float [B, D, H, W]."""
        z_e = functional.normalize(z_e, dim=1)
        vectors = vectors_of(z_e)
        indices, counts = self.choose(vectors)
        z_q = as_map(self.embedding[indices], z_e)
        if self.training:
            with torch.no_grad():
                smoothed = self.average(vectors, indices, counts)
                if not self.sound:
                    smoothed = smoothed / self.ema_cluster_size.sum()
                self.embedding.copy_(self.sums / smoothed)
                rare = (self.ema_cluster_size < RARE_COUNT).nonzero().squeeze(1)
                drawn = torch.randint(len(vectors), (len(rare),), device=vectors.device)
                self.embedding[rare] = vectors[drawn]
        vq_loss = functional.mse_loss(z_e.detach(), z_q) + COMMITMENT * functional.mse_loss(z_e, z_q.detach())
        places = indices.view(len(z_e), *z_e.shape[2:])
        return Quantized(z_e + (z_q - z_e).detach(), places, vq_loss, perplexity_of(counts))


class SphereCodes(EMAQuantizer):
    """Layer B: codes are put on the unit sphere after each update, vectors are not.

    The VQ loss is `COMMITMENT * mse(sg z_e, z_q)`, and z_q comes from a buffer: it is added to the task loss
    and has no gradient at all.

    The counts start at one, and the sums as a copy of the codes.

    Attributes:
        steps: updates, buffer [].
        dead_code_threshold: a number of steps, without effect while `enable_dead_code_refresh` is off.
        sound: whether codes keep their own length and the loss pulls at z_e: the healthy twin.
    """

    SUMS = "ema_embed_sum"
    steps: torch.Tensor

    def __init__(self, num_codes: int, dim: int, *, decay: float = 0.95, sound: bool = False) -> None:
        codes = functional.normalize(torch.randn(num_codes, dim), dim=1)
        super().__init__(codes, torch.ones(num_codes), codes.clone(), decay)
        self.sound = sound
        self.dead_code_threshold = 100
        self.enable_dead_code_refresh = False
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, z_e: torch.Tensor) -> Quantized:
        """Quantize z_e, float [B, D, H, W]."""
        vectors = vectors_of(z_e)
        indices, counts = self.choose(vectors)
        z_q = as_map(self.embedding[indices], z_e)
        if self.training:
            with torch.no_grad():
                means = self.sums / self.average(vectors, indices, counts)
                self.embedding.copy_(means if self.sound else functional.normalize(means, dim=1))
                self.steps += 1
        held = z_e if self.sound else z_e.detach()
        vq_loss = COMMITMENT * functional.mse_loss(held, z_q)
        places = indices.view(len(z_e), *z_e.shape[2:])
        return Quantized(z_e + (z_q - z_e).detach(), places, vq_loss, perplexity_of(counts))

    @torch.no_grad()
    def set_codes(self, codes: torch.Tensor, counts: torch.Tensor) -> None:
        """Write the codebook [K, D] at unit length and its counts [K], and the sums that belong to them."""
        super().set_codes(codes, counts)
        if not self.sound:
            self.embedding.copy_(functional.normalize(self.embedding, dim=1))
