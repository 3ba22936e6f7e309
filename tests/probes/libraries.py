"""Other people's quantizers, rewritten or imported, in small models, for test_libraries.py.

Each is written as its library writes it; only sizes differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from stored import Stored
from torch import nn
from torch.nn import functional

from vqdoctor.layouts import find_quantizers
from vqdoctor.models.task import Losses
from vqdoctor.probes.model import ModelContext

CODES, DIM, POSITIONS = 16, 8, 6


Use = Callable[[nn.Module, torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]]


def first_and_losses(vq: nn.Module, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Call as most libraries are called: z_q first, and every small float after it is a loss."""
    z_q, *rest = vq(z)
    losses = [t for t in rest if isinstance(t, torch.Tensor) and t.requires_grad and t.numel() < 9]
    return z_q, sum((loss.sum() for loss in losses), torch.zeros(())) if losses else None


class Classifier(nn.Module):
    """Linear encoder, a quantizer, and a head on the mean over positions."""

    def __init__(
        self, vq: nn.Module, use: Use = first_and_losses, *, out: int = DIM, shape: str = "bnd"
    ) -> None:
        super().__init__()
        self.encoder, self.vq, self.head = nn.Linear(3, DIM), vq, nn.Linear(out, 4)
        self.use, self.shape = use, shape

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        z = self.encoder(x)
        if self.shape == "bdn":
            z = z.transpose(1, 2)
        elif self.shape == "bdhw":
            z = z.unflatten(1, (2, -1)).permute(0, 3, 1, 2)
        z_q, loss = self.use(self.vq, z)
        if self.shape != "bnd":
            z_q = z_q.flatten(2).transpose(1, 2)
        return self.head(z_q.mean(1)), loss


class ToyTask:
    """Four clusters of sequences; batches of 16, another 64 samples to each split."""

    vq_weight = 0.25

    def __init__(self, model: nn.Module | None = None) -> None:
        self._model = model
        generator = torch.Generator().manual_seed(1)
        self.y = torch.arange(64) % 4
        centres = torch.randn(4, 3, generator=generator)[self.y][:, None]
        noise = {split: torch.randn(64, POSITIONS, 3, generator=generator) for split in ("train", "val")}
        self.x = {split: centres + 0.3 * part for split, part in noise.items()}

    def model(self) -> nn.Module:
        assert self._model is not None
        return self._model

    def batches(self, split: str) -> Iterator[Any]:
        return zip(self.x[split].split(16), self.y.split(16), strict=True)

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        logits, vq = model(batch[0])
        return Losses(task=functional.cross_entropy(logits, batch[1]), vq=vq, logits=logits, labels=batch[1])


def context(model: nn.Module, task: Any = None) -> ModelContext:
    found = find_quantizers({name: Stored(t) for name, t in model.state_dict().items()})
    return ModelContext(
        model=model,
        task=task or ToyTask(model),
        views=found.views,
    )


class PlainVQ(nn.Module):
    """A user's own quantizer of [..., D], with the estimators that one meets."""

    def __init__(self, estimator: str = "ste", *, channel_first: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CODES, DIM)
        self.estimator, self.channel_first = estimator, channel_first

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if self.channel_first:
            z = z.movedim(1, -1)
        indices = torch.cdist(z.reshape(-1, DIM), self.embedding.weight).argmin(-1)
        q = self.embedding(indices).view_as(z)
        loss = functional.mse_loss(q, z.detach()) + 0.25 * functional.mse_loss(z, q.detach())
        z_q = self.estimate(z, q)
        return z_q.movedim(-1, 1) if self.channel_first else z_q, loss, indices

    def estimate(self, z: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        match self.estimator:
            case "ste":
                return z + (q - z).detach()
            case "not detached":
                return z + (q - z)
            case "detached twice":
                return z.detach() + (q - z).detach()
            case "scaled":
                return 0.1 * z + (q - 0.1 * z).detach()
            case "noise":
                noise = functional.normalize(torch.randn_like(z), dim=-1)
                return z + (q - z).norm(dim=-1, keepdim=True) * noise
        return q


class ZalandoEMA(nn.Module):
    """zalandoresearch's notebook: new Parameter objects in every training forward."""

    def __init__(self) -> None:
        super().__init__()
        self._embedding = nn.Embedding(CODES, DIM)
        self._embedding.weight.data.normal_()
        self.register_buffer("_ema_cluster_size", torch.zeros(CODES))
        self._ema_w = nn.Parameter(torch.randn(CODES, DIM))

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inputs = inputs.permute(0, 2, 3, 1).contiguous()
        flat = inputs.view(-1, DIM)
        chosen = torch.cdist(flat, self._embedding.weight).argmin(1)
        encodings = functional.one_hot(chosen, CODES).float()
        quantized = (encodings @ self._embedding.weight).view(inputs.shape)
        if self.training:
            counts = self._ema_cluster_size * 0.99 + 0.01 * encodings.sum(0)
            self._ema_cluster_size = (counts + 1e-5) / (counts.sum() + CODES * 1e-5) * counts.sum()
            self._ema_w = nn.Parameter(self._ema_w * 0.99 + 0.01 * encodings.t() @ flat)
            self._embedding.weight = nn.Parameter(self._ema_w / self._ema_cluster_size[:, None])
        loss = 0.25 * functional.mse_loss(quantized.detach(), inputs)
        quantized = inputs + (quantized - inputs).detach()
        used = encodings.mean(0)
        perplexity = torch.exp(-(used * torch.log(used + 1e-10)).sum())
        return loss, quantized.permute(0, 3, 1, 2).contiguous(), perplexity, encodings


def zalando(vq: nn.Module, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    loss, z_q, *_ = vq(z)
    return z_q, loss


class Rosinality(nn.Module):
    """rosinality's VQ-VAE-2: buffers [D, K], written in place in the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        embed = torch.randn(DIM, CODES)
        self.register_buffer("embed", embed)
        self.register_buffer("cluster_size", torch.zeros(CODES))
        self.register_buffer("embed_avg", embed.clone())

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        flat = inputs.reshape(-1, DIM)
        _, chosen = (-torch.cdist(flat, self.embed.t())).max(1)
        onehot = functional.one_hot(chosen, CODES).type(flat.dtype)
        quantize = functional.embedding(chosen.view(*inputs.shape[:-1]), self.embed.t())
        if self.training:
            self.cluster_size.data.mul_(0.99).add_(onehot.sum(0), alpha=0.01)
            self.embed_avg.data.mul_(0.99).add_(flat.detach().t() @ onehot, alpha=0.01)
            n = self.cluster_size.sum()
            counts = (self.cluster_size + 1e-5) / (n + CODES * 1e-5) * n
            self.embed.data.copy_(self.embed_avg / counts)
        diff = (quantize.detach() - inputs).pow(2).mean()
        return inputs + (quantize - inputs).detach(), diff, chosen.view(*inputs.shape[:-1])


class TamingGumbel(nn.Module):
    """taming-transformers' GumbelQuantize: the codes have another dimension than the input."""

    def __init__(self, out: int, *, hard: bool) -> None:
        super().__init__()
        self.proj, self.embed, self.hard = nn.Conv2d(DIM, CODES, 1), nn.Embedding(CODES, out), hard

    def forward(self, z: torch.Tensor) -> tuple[Any, ...]:
        hard = self.hard if self.training else True
        logits = self.proj(z)
        onehot = functional.gumbel_softmax(logits, tau=1.0, dim=1, hard=hard)
        z_q = torch.einsum("bnhw,nd->bdhw", onehot, self.embed.weight)
        soft = functional.softmax(logits, dim=1)
        diff = 5e-4 * torch.sum(soft * torch.log(soft * CODES + 1e-10), dim=1).mean()
        return z_q, diff, (None, None, onehot.argmax(dim=1))


class BestRQ(nn.Module):
    """Random projections give the targets; the encoder never sees z_q."""

    def __init__(self, quantizer: nn.Module) -> None:
        super().__init__()
        self.quantizer, self.encoder = quantizer, nn.Linear(3, 16)
        self.predict, self.head = nn.Linear(16, 2 * CODES), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        targets = self.quantizer(x)
        hidden = torch.relu(self.encoder(x))
        loss = functional.cross_entropy(self.predict(hidden).reshape(-1, CODES), targets.flatten())
        return self.head(hidden.mean(1)), loss
