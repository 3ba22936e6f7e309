"""VQ layers of public code in a distributed training, each with or without what its processes must share.

The modules are the libraries' own where these are installed (diffusers, transformers); what a training adds
to them, an EMA, a start from the data or a revival, is written as in the public repositories.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import distributed, nn
from torch.nn import functional

CODES, DIM = 32, 8
EVEN, RARE = 10.0, 8.0
"""EMA count of a code in an even usage of both processes, and the count under which it is revived."""
Out = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def together() -> bool:
    return distributed.is_initialized()


def added(tensor: torch.Tensor, *, shared: bool) -> torch.Tensor:
    """Return the sum over the processes, or this one's values."""
    if shared and together():
        distributed.all_reduce(tensor)
    return tensor


def of_first(tensor: torch.Tensor, *, shared: bool) -> torch.Tensor:
    """Return the values of process zero, or this one's."""
    if shared and together():
        distributed.broadcast(tensor, 0)
    return tensor


def drawn(vectors: torch.Tensor, *, shared: bool) -> torch.Tensor:
    """Return as many vectors of a batch as there are codes."""
    return of_first(vectors[torch.randperm(len(vectors))[:CODES]].detach().clone(), shared=shared)


def passed(z_e: torch.Tensor, z_q: torch.Tensor, indices: torch.Tensor) -> Out:
    """Return z_q with a straight-through estimator, and the commitment loss."""
    loss = functional.mse_loss(z_e, z_q.detach())
    return z_e + (z_q - z_e).detach(), indices.view(z_e.shape[:-1]), loss


class Rosinality(nn.Module):
    """VQ-VAE-2's layer of rosinality: buffers [D, K], and `dist_fn.all_reduce` or not."""

    def __init__(self, *, reduced: bool = True) -> None:
        super().__init__()
        self.reduced = reduced
        embed = torch.randn(DIM, CODES)
        self.register_buffer("embed", embed)
        self.register_buffer("cluster_size", torch.zeros(CODES))
        self.register_buffer("embed_avg", embed.clone())

    def forward(self, z_e: torch.Tensor) -> Out:
        flat = z_e.reshape(-1, DIM)
        distances = flat.pow(2).sum(1, keepdim=True) - 2 * flat @ self.embed + self.embed.pow(2).sum(0)
        indices = distances.argmin(1)
        z_q = functional.embedding(indices, self.embed.t()).view_as(z_e)
        if self.training:
            onehot = functional.one_hot(indices, CODES).type(flat.dtype)
            counts = added(onehot.sum(0), shared=self.reduced)
            sums = added(flat.detach().t() @ onehot, shared=self.reduced)
            self.cluster_size.mul_(0.99).add_(counts, alpha=0.01)
            self.embed_avg.mul_(0.99).add_(sums, alpha=0.01)
            whole = self.cluster_size.sum()
            smoothed = (self.cluster_size + 1e-5) / (whole + CODES * 1e-5) * whole
            self.embed.copy_(self.embed_avg / smoothed)
        return passed(z_e, z_q, indices)


class Encodec(nn.Module):
    """A training of transformers' EnCodec codebook, as EnCodec's core_vq does it."""

    def __init__(self, *, begun: bool = True, revived: bool = True, reduced: bool = True) -> None:
        super().__init__()
        from transformers import EncodecConfig
        from transformers.models.encodec.modeling_encodec import EncodecEuclideanCodebook

        self.begun, self.revived, self.reduced = begun, revived, reduced
        self.codebook = EncodecEuclideanCodebook(EncodecConfig(codebook_size=CODES, codebook_dim=DIM))
        self.codebook.inited.zero_()

    def forward(self, z_e: torch.Tensor) -> Out:
        flat, own = z_e.detach().reshape(-1, DIM), self.codebook
        if self.training and not own.inited:
            own.inited.fill_(1)
            self.write(torch.ones(CODES, dtype=torch.bool), drawn(flat, shared=self.begun))
        indices = own.encode(flat)
        z_q = own.decode(indices).view_as(z_e)
        if self.training:
            new, dead = drawn(flat, shared=self.revived), own.cluster_size < RARE
            dead = of_first(dead.float(), shared=self.revived).bool()
            self.write(dead, new[dead])
            onehot = functional.one_hot(indices, CODES).to(flat)
            own.cluster_size.mul_(0.9).add_(added(onehot.sum(0), shared=self.reduced), alpha=0.1)
            own.embed_avg.mul_(0.9).add_(added(onehot.t() @ flat, shared=self.reduced), alpha=0.1)
            whole = own.cluster_size.sum()
            smoothed = (own.cluster_size + 1e-5) / (whole + CODES * 1e-5) * whole
            own.embed.copy_(own.embed_avg / smoothed[:, None])
        return passed(z_e, z_q, indices)

    def write(self, rows: torch.Tensor, codes: torch.Tensor) -> None:
        """Write codes with the counts and sums of an even usage."""
        self.codebook.embed[rows] = codes
        self.codebook.embed_avg[rows] = EVEN * codes
        self.codebook.cluster_size[rows] = EVEN


class Mimi(nn.Module):
    """A training of transformers' Mimi codebook, of which sums and counts alone are stored."""

    def __init__(self, *, reduced: bool = True) -> None:
        super().__init__()
        from transformers import MimiConfig
        from transformers.models.mimi.modeling_mimi import MimiEuclideanCodebook

        self.reduced = reduced
        self.codebook = MimiEuclideanCodebook(MimiConfig(codebook_size=CODES, codebook_dim=DIM))
        self.codebook.embed_sum.normal_()

    def forward(self, z_e: torch.Tensor) -> Out:
        flat, own = z_e.detach().reshape(-1, DIM), self.codebook
        own._embed = None
        indices = own.encode(flat)
        z_q = own.decode(indices).view_as(z_e)
        if self.training:
            onehot = functional.one_hot(indices, CODES).to(flat)
            own.cluster_usage.mul_(0.9).add_(added(onehot.sum(0), shared=self.reduced), alpha=0.1)
            own.embed_sum.mul_(0.9).add_(added(onehot.t() @ flat, shared=self.reduced), alpha=0.1)
        own._embed = None
        return passed(z_e, z_q, indices)


class Renewing(nn.Module):
    """A library's layer with trained codes, some of which a user's training writes itself.

    Attributes:
        begins: whether the codes start from the first batch.
        shared: whether all processes write the same.
    """

    def __init__(self, *, begins: bool = False, shared: bool = True) -> None:
        super().__init__()
        self.begins, self.shared = begins, shared
        self.register_buffer("used", torch.ones(CODES))
        self.begun = False

    def renew(self, codes: torch.Tensor, vectors: torch.Tensor, indices: torch.Tensor) -> None:
        """Write all codes at first, and later those that hardly anything chooses."""
        counts = torch.bincount(indices.flatten(), minlength=CODES).float()
        self.used.mul_(0.5).add_(added(counts, shared=self.shared), alpha=0.5)
        whole = self.begins and not self.begun
        rows = torch.ones(CODES, dtype=torch.bool) if whole else self.used < 0.6
        codes[rows] = drawn(vectors, shared=self.shared)[rows]
        self.begun = True


class Diffusers(Renewing):
    """diffusers' VectorQuantizer around [B, D, H, W]."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        from diffusers.models.autoencoders.vae import VectorQuantizer

        self.vq = VectorQuantizer(CODES, DIM, beta=0.25)

    def forward(self, z_e: torch.Tensor) -> Out:
        z_q, loss, (_, _, indices) = self.vq(z_e.movedim(-1, 1)[..., None])
        if self.training:
            self.renew(self.vq.embedding.weight.data, z_e.detach().reshape(-1, DIM), indices)
        return z_q[..., 0].movedim(1, -1), indices.view(z_e.shape[:-1]), loss


class Dac(Renewing):
    """transformers' DAC level around [B, D, N]."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        from transformers import DacConfig
        from transformers.models.dac.modeling_dac import DacVectorQuantize

        self.vq = DacVectorQuantize(DacConfig(hidden_size=DIM, codebook_size=CODES, codebook_dim=4))

    def forward(self, z_e: torch.Tensor) -> Out:
        z_q, pull, follow, indices, latents = self.vq(z_e.movedim(-1, 1))
        if self.training:
            self.renew(self.vq.codebook.weight.data, latents.movedim(1, -1).reshape(-1, 4), indices)
        return z_q.movedim(1, -1), indices, 0.25 * pull + follow


class NSVQ(nn.Module):
    """NSVQ: noise in place of the estimator, and unused codes replaced by used ones every few batches."""

    def __init__(self, *, shared: bool = True) -> None:
        super().__init__()
        self.shared, self.batches = shared, 0
        self.codebooks = nn.Parameter(torch.randn(CODES, DIM))
        self.codebooks_used = torch.zeros(CODES)

    def forward(self, z_e: torch.Tensor) -> Out:
        flat = z_e.reshape(-1, DIM)
        indices = torch.cdist(flat.detach(), self.codebooks.detach()).argmin(1)
        hard = self.codebooks[indices].view_as(z_e)
        noise = torch.randn_like(z_e)
        scale = (z_e - hard).norm(dim=-1, keepdim=True) / (noise.norm(dim=-1, keepdim=True) + 1e-12)
        z_q = z_e + scale * noise if self.training else hard
        if self.training:
            counts = torch.bincount(indices, minlength=CODES).float()
            self.codebooks_used += added(counts, shared=self.shared)
            self.batches += 1
            if self.batches % 2 == 0:
                self.replace()
        return z_q, indices.view(z_e.shape[:-1]), z_e.new_zeros(())

    @torch.no_grad()
    def replace(self) -> None:
        """Put used codes with a little noise in the place of unused ones."""
        unused = self.codebooks_used < 1
        used = self.codebooks[~unused]
        new = used[torch.randint(len(used), (CODES,))] + 0.02 * torch.randn(CODES, DIM)
        self.codebooks[unused] = of_first(new, shared=self.shared)[unused]
        self.codebooks_used.zero_()


def sim_vq() -> nn.Module:
    from vector_quantize_pytorch import SimVQ

    return SimVQ(dim=DIM, codebook_size=CODES)


HEALTHY: dict[str, Callable[[], nn.Module]] = {
    "rosinality, all-reduced": Rosinality,
    "transformers' EnCodec": Encodec,
    "transformers' Mimi": Mimi,
    "transformers' DAC": Dac,
    "diffusers": Diffusers,
    "diffusers, started from the data of one": lambda: Diffusers(begins=True),
    "NSVQ": NSVQ,
    "SimVQ": sim_vq,
}
SICK: dict[str, Callable[[], nn.Module]] = {
    "rosinality, not reduced": lambda: Rosinality(reduced=False),
    "transformers' EnCodec, not reduced": lambda: Encodec(reduced=False),
    "transformers' EnCodec, started by its own": lambda: Encodec(begun=False),
    "transformers' EnCodec, revived by its own": lambda: Encodec(revived=False),
    "transformers' Mimi, not reduced": lambda: Mimi(reduced=False),
    "transformers' DAC, revived by its own": lambda: Dac(shared=False),
    "diffusers, revived by its own": lambda: Diffusers(shared=False),
    "diffusers, started from its own data": lambda: Diffusers(begins=True, shared=False),
    "NSVQ, replaced by its own": lambda: NSVQ(shared=False),
}
