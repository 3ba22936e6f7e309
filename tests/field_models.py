"""Public bug reports, rebuilt small: a quantizer as the report has it, in an autoencoder of digits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from small_vqvae import digits
from torch import nn
from torch.nn import functional
from vector_quantize_pytorch import FSQ, LFQ, ResidualVQ, VectorQuantize

from vqdoctor.models.task import Losses


def rows_of(z: torch.Tensor) -> torch.Tensor:
    """Return [B, D, 4, 4] as [B, 16, D]."""
    return z.flatten(2).transpose(1, 2)


def nearest(rows: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    return (rows.pow(2).sum(-1, keepdim=True) - 2 * rows @ codes.T + codes.pow(2).sum(1)).argmin(-1)


class Autoencoder(nn.Module):
    """Encoder to [B, D, 4, 4], a quantizer of [B, 16, D] under the report's name, decoder."""

    def __init__(
        self,
        quantizer: nn.Module,
        name: str = "quantize",
        dim: int = 16,
        order: str = "flow",
        cut: bool = False,
    ) -> None:
        super().__init__()
        parts = {
            "encoder": nn.Sequential(
                nn.Conv2d(1, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 32, 4, 2, 1), nn.ReLU(),
                nn.Conv2d(32, dim, 1),
            ),
            name: quantizer,
            "decoder": nn.Sequential(
                nn.Conv2d(dim, 32, 3, 1, 1), nn.ReLU(), nn.ConvTranspose2d(32, 32, 4, 2, 1), nn.ReLU(),
                nn.Conv2d(32, 1, 3, 1, 1),
            ),
        }  # fmt: skip
        orders = {"flow": (0, 1, 2), "taming": (0, 2, 1), "first": (1, 0, 2)}
        for place in orders[order]:
            self.add_module(list(parts)[place], list(parts.values())[place])
        self.of, self.cut = name, cut

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Any]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.cut):
            z = self.encoder(x)
        z_q, loss, indices = getattr(self, self.of)(rows_of(z))
        return self.decoder(z_q.transpose(1, 2).reshape(z.shape)), loss, indices


class SummedEma(nn.Module):
    """taming-transformers#191: the codes are the running sums, which nothing divides by the counts."""

    def __init__(self, codes: int = 128, dim: int = 16) -> None:
        super().__init__()
        table = torch.randn(dim, codes)
        self.register_buffer("embed", table)
        self.register_buffer("cluster_size", torch.zeros(codes))
        self.register_buffer("embed_avg", table.clone())

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        chosen = nearest(z, self.embed.T)
        z_q = self.embed.T[chosen]
        if self.training:
            with torch.no_grad():
                votes = functional.one_hot(chosen.flatten(), len(self.embed.T)).to(z)
                self.cluster_size.mul_(0.99).add_(votes.sum(0), alpha=0.01)
                self.embed_avg.mul_(0.99).add_(z.flatten(0, 1).T @ votes, alpha=0.01)
                self.embed.copy_(self.embed_avg)
        return z + (z_q - z).detach(), functional.mse_loss(z_q.detach(), z), chosen


class Embedding(nn.Module):
    """zalando's layer without an EMA; with `window` it keeps the last indices, as LlamaGen does."""

    def __init__(self, codes: int = 128, dim: int = 16, window: int = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, dim)
        self.embedding.weight.data.uniform_(-1 / 16, 1 / 16)
        if window:
            self.register_buffer("codebook_used", torch.zeros(window))

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        chosen = nearest(z, self.embedding.weight)
        z_q = self.embedding(chosen)
        if self.training and hasattr(self, "codebook_used"):
            kept = torch.cat([self.codebook_used, chosen.flatten()])[-len(self.codebook_used) :]
            self.codebook_used.copy_(kept)
        loss = functional.mse_loss(z_q, z.detach()) + 0.25 * functional.mse_loss(z_q.detach(), z)
        return z + (z_q - z).detach(), loss, chosen


class Soundstream(nn.Module):
    """soundstream-pytorch#7: the dropout of levels draws randrange(1, Q): the last is never trained."""

    def __init__(self, levels: int = 4, codes: int = 64, dim: int = 16) -> None:
        super().__init__()
        self.register_buffer("weight", torch.rand(levels, codes, dim))
        self.register_buffer("running_mean", self.weight / codes)
        self.register_buffer("code_relative_frequency", torch.full((levels, codes), 1 / codes))

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        levels, codes = self.code_relative_frequency.shape
        rest = z.detach().flatten(0, 1)
        drawn = int(torch.randint(1, levels, ())) if self.training else levels
        ids = []
        for level in range(drawn):
            chosen = nearest(rest, self.weight[level])
            ids.append(chosen)
            if self.training:
                self._update(level, rest, functional.one_hot(chosen, codes).to(z))
            rest = rest - self.weight[level][chosen]
        if self.training:
            self.weight.copy_(self.running_mean / (1e-10 + self.code_relative_frequency)[..., None])
        z_q = z.detach() - rest.view_as(z)
        ids += [torch.full_like(ids[0], -1)] * (levels - drawn)
        return z + (z_q - z).detach(), functional.mse_loss(z, z_q), torch.stack(ids, -1)

    def _update(self, level: int, rest: torch.Tensor, votes: torch.Tensor) -> None:
        share, mean = self.code_relative_frequency[level], self.running_mean[level]
        share.mul_(0.99).add_(votes.mean(0), alpha=0.01)
        mean.mul_(0.99).add_(votes.T @ rest / len(rest), alpha=0.01)
        if (dead := share < 1e-4).any():
            new = rest[torch.randint(0, len(rest), (int(dead.sum()),))]
            self.weight[level][dead], mean[dead], share[dead] = new, new / len(share), 1 / len(share)


class Lucid(nn.Module):
    """A layer of vector-quantize-pytorch with its outputs in this module's order."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.vq = layer

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Any]:
        z_q, indices, *loss = self.vq(z)
        return z_q, loss[0].sum() if loss else z_q.new_zeros(()), indices


class RqVae(nn.Module):
    """RQ-VAE-Recommender#65: a reconstruction averaged over the inputs beside a VQ loss summed over D."""

    def __init__(
        self, right: bool, first: bool = True, levels: int = 3, codes: int = 64, dim: int = 32
    ) -> None:
        super().__init__()
        if first:
            self.layers = nn.ModuleList(Level(codes, dim) for _ in range(levels))
        self.encoder = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, dim))
        self.decoder = nn.Sequential(nn.Linear(dim, 64), nn.ReLU(), nn.Linear(64, 64))
        if not first:
            self.layers = nn.ModuleList(Level(codes, dim) for _ in range(levels))
        self.right = right

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rest, total, loss = self.encoder(x), torch.zeros(()), torch.zeros(())
        for level in self.layers:
            z_q, _, own = level(rest)
            rest, total, loss = rest - z_q, total + z_q, loss + own
        error = (functional.normalize(self.decoder(total), dim=-1) - x) ** 2
        return (error.sum(-1) if self.right else error.mean(-1)).mean(), loss.mean()


class Level(nn.Module):
    def __init__(self, codes: int, dim: int) -> None:
        super().__init__()
        self.embedding, self.beta = nn.Embedding(codes, dim), 0.25
        nn.init.uniform_(self.embedding.weight, -0.05, 0.05)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        chosen = nearest(z, self.embedding.weight)
        z_q = self.embedding(chosen)
        loss = ((z.detach() - z_q) ** 2).sum(-1) + self.beta * ((z - z_q.detach()) ** 2).sum(-1)
        return z + (z_q - z).detach(), chosen, loss


class Padded(nn.Module):
    """vector-quantize-pytorch#62: 4 to 8 real frames of 32; padding goes through the layer, or is masked."""

    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 16))
        self.vq = VectorQuantize(
            dim=16, codebook_size=128, decay=0.95, kmeans_init=True, threshold_ema_dead_code=0
        )
        self.decoder = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 8))
        self.masked = masked

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        z_q, indices, loss = self.vq(self.encoder(x), mask=mask if self.masked else None)
        return self.decoder(z_q), loss.mean(), indices


class Images:
    """A task of digits and any of these autoencoders."""

    vq_weight: float | None = 1.0

    def __init__(self, build: Any, weight: float = 1.0) -> None:
        self.build, self.vq_weight = build, weight

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        model: nn.Module = self.build()
        return model

    def batches(self, split: str) -> Any:
        x = digits()[0] if split == "train" else digits()[1]
        return (2 * x / x.max() - 1).split(50)

    def losses(self, model: nn.Module, x: Any) -> Losses:
        recon, loss, _ = model(x)
        return Losses(task=functional.mse_loss(recon, x), vq=loss)


class Vectors(Images):
    """The same digits as unit vectors, for the RQ-VAE."""

    def batches(self, split: str) -> Any:
        x = digits()[0] if split == "train" else digits()[1]
        return functional.normalize(x.flatten(1), dim=1).split(100)

    def losses(self, model: nn.Module, x: Any) -> Losses:
        task, loss = model(x)
        return Losses(task=task, vq=loss)


class Sequences(Images):
    """The rows of the digits as frames, padded to 32."""

    def batches(self, split: str) -> Iterator[Any]:
        x = (digits()[0] if split == "train" else digits()[1]).squeeze(1)
        lengths = torch.randint(4, 9, (len(x),), generator=torch.Generator().manual_seed(0))
        mask = torch.arange(32) < lengths[:, None]
        frames = torch.zeros(len(x), 32, 8)
        frames[:, :8] = 2 * x / x.max() - 1
        frames *= mask[..., None]
        return zip(frames.split(50), mask.split(50), strict=True)

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        x, mask = batch
        recon, loss, _ = model(x, mask)
        error = (recon - x).pow(2).mean(-1)
        return Losses(task=(error * mask).sum() / mask.sum(), vq=loss)


def train(task: Any, steps: int, rate: float = 1e-3) -> dict[str, Any]:
    """Train by the task's own loss and return what the report's script saves."""
    torch.set_num_threads(1)
    model = task.model().train()
    adam = torch.optim.Adam(model.parameters(), lr=rate)
    done = 0
    while done < steps:
        for batch in task.batches("train"):
            losses = task.losses(model, batch)
            adam.zero_grad()
            (losses.task + task.vq_weight * losses.vq).backward()
            adam.step()
            if (done := done + 1) == steps:
                break
    return {"state_dict": model.state_dict(), "optimizer": adam.state_dict(), "global_step": steps}


def fsq() -> nn.Module:
    return Autoencoder(Lucid(FSQ(levels=[8, 6, 5], num_codebooks=2, dim=16)), "quantizer")


def lfq() -> nn.Module:
    return Autoencoder(Lucid(LFQ(codebook_size=1024, dim=16, entropy_loss_weight=0.0)), "quantizer")


def residual(levels: int = 4, codes: int = 64, name: str = "quantizer") -> nn.Module:
    return Autoencoder(Lucid(ResidualVQ(dim=16, codebook_size=codes, num_quantizers=levels)), name)
