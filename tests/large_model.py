"""A model of 98 million parameters around one VQ layer, and its task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from vqdoctor import Losses

WIDTH, BLOCKS = 2048, 23


class VQ(nn.Module):
    """zalando's quantizer, of vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(512, 64)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        indices = torch.cdist(z, self.embedding.weight).argmin(1)
        z_q = self.embedding(indices)
        loss = functional.mse_loss(z_q, z.detach()) + 0.25 * functional.mse_loss(z, z_q.detach())
        return z + (z_q - z).detach(), indices, loss


class Model(nn.Module):
    """Wide layers before and behind it."""

    def __init__(self) -> None:
        super().__init__()

        def wide(count: int) -> Iterator[nn.Module]:
            for _ in range(count):
                yield from (nn.Linear(WIDTH, WIDTH), nn.ReLU())

        half = BLOCKS // 2
        before, behind = nn.Linear(256, WIDTH), nn.Linear(64, WIDTH)
        self.encoder = nn.Sequential(before, nn.ReLU(), *wide(BLOCKS - half), nn.Linear(WIDTH, 64))
        self.vq = VQ()
        self.decoder = nn.Sequential(behind, nn.ReLU(), *wide(half), nn.Linear(WIDTH, 256))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, _, loss = self.vq(self.encoder(x))
        return self.decoder(z_q), loss


class Task:
    """Reconstruction of vectors that span 16 directions; every split has eight batches."""

    vq_weight = 1.0

    def model(self) -> Model:
        torch.manual_seed(0)
        return Model()

    def batches(self, split: str) -> Iterator[torch.Tensor]:
        generator = torch.Generator().manual_seed(len(split))
        directions = torch.randn(16, 256, generator=torch.Generator().manual_seed(5))
        for _ in range(8):
            yield torch.randn(32, 16, generator=generator) @ directions

    def losses(self, model: Model, x: torch.Tensor) -> Losses:
        out, loss = model(x)
        return Losses(task=functional.mse_loss(out, x), vq=loss)

    def optimizer(self, model: Model) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), 1e-4)


task = Task()


def save(path: Path) -> None:
    """Save the model as a training script would."""
    torch.save({"model": task.model().state_dict()}, path)
