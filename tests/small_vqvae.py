"""A user's small VQ-VAE of digits, on vector-quantize-pytorch, and its script's checkpoint."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from vector_quantize_pytorch import VectorQuantize

DIGITS = Path(__file__).parents[1] / "sample_checkpoints" / "digits.npz"
WEIGHT = 0.25


class VQVAE(nn.Module):
    """Encoder, VQ layer and decoder of [B, 1, 8, 8]; `detach` cuts the encoder off after a healthy layer."""

    def __init__(self, dim: int = 8, codes: int = 32, detach: bool = False) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, dim, 3, 1, 1))
        self.vq = VectorQuantize(
            dim=dim, codebook_size=codes, accept_image_fmap=True, kmeans_init=True, decay=0.9
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(dim, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 1, 3, 1, 1)
        )
        self.detach = detach

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        z_q, indices, loss = self.vq(self.encoder(x))
        if self.detach:
            z_q = z_q.detach()
        return {"recon": self.decoder(z_q), "indices": indices, "vq_loss": loss}


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Return images for training, and others."""
    x = torch.from_numpy(np.load(DIGITS)["x"]).float()
    return x[:1200], x[1200:]


class DigitsTask:
    """A user's task: no base class, and losses of its own type."""

    vq_weight: float | None = WEIGHT

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def model(self) -> nn.Module:
        return VQVAE(**self.settings)

    def batches(self, split: str) -> Any:
        return {"train": digits()[0], "val": digits()[1]}[split].split(64)

    def losses(self, model: nn.Module, x: torch.Tensor) -> Any:
        output = model(x)
        return Found(functional.mse_loss(output["recon"], x), output["vq_loss"].sum())


class Found:
    """Losses without the optional fields."""

    def __init__(self, task: Any, vq: Any = None) -> None:
        self.task = task
        self.vq = vq


@cache
def trained(detach: bool = False) -> tuple[VQVAE, torch.optim.Optimizer]:
    """Train six epochs; the same model whenever it is asked for, so leave it as it is."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VQVAE(detach=detach)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        x = digits()[0]
        for _ in range(6):
            for batch in x[torch.randperm(len(x))].split(64):
                output = model(batch)
                loss = functional.mse_loss(output["recon"], batch) + WEIGHT * output["vq_loss"].sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return model, optimizer


def save(path: Path, prefix: str = "", *, detach: bool = False) -> Path:
    """Save as a user's script would, every key under `prefix`."""
    model, optimizer = trained(detach)
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state, "optimizer": optimizer.state_dict(), "epoch": 6}, path)
    return path
