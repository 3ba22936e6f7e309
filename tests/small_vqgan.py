"""A user's small VQ-GAN of digits: two optimizers, two backward passes a step, a weight by gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from small_vqvae import digits
from torch import nn
from torch.nn import functional

WEIGHT = 0.5


class VQ(nn.Module):
    """zalando's quantizer, on feature maps."""

    def __init__(self, codes: int = 32, dim: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, dim)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        flat = z.permute(0, 2, 3, 1).flatten(0, 2)
        indices = torch.cdist(flat, self.embedding.weight).argmin(1)
        z_q = self.embedding(indices).view(len(z), *z.shape[2:], -1).permute(0, 3, 1, 2)
        loss = functional.mse_loss(z_q, z.detach()) + 0.25 * functional.mse_loss(z, z_q.detach())
        return z + (z_q - z).detach(), loss, indices


class VQGAN(nn.Module):
    """Encoder, VQ layer, decoder, and the discriminator in the same module."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 8, 3, 1, 1))
        self.vq = VQ()
        self.decoder = nn.Sequential(nn.ConvTranspose2d(8, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 1, 3, 1, 1))
        self.judge = nn.Sequential(nn.Conv2d(1, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(16, 1, 4))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, loss, _ = self.vq(self.encoder(x))
        return self.decoder(z_q), loss


class GanTask:
    """As such tasks are written: the optimizers are kept, the steps are counted, the weight is adaptive."""

    vq_weight: float | None = WEIGHT
    begins = 20
    """The step from which the discriminator counts."""

    def __init__(self) -> None:
        self.steps = 0

    def model(self) -> VQGAN:
        return VQGAN()

    def batches(self, split: str) -> Any:
        return {"train": digits()[0], "val": digits()[1]}[split].split(64)

    def optimizer(self, model: VQGAN) -> Any:
        own = [p for name, p in model.named_parameters() if not name.startswith("judge")]
        self.ours = torch.optim.Adam(own, lr=2e-3, betas=(0.5, 0.9))
        self.theirs = torch.optim.Adam(model.judge.parameters(), lr=1e-3, betas=(0.5, 0.9))
        return self.ours, self.theirs

    def step(self, model: VQGAN, x: torch.Tensor) -> Any:
        out, vq = model(x)
        rec, told = (out - x).abs().mean(), -model.judge(out).mean()
        last = model.decoder[-1].weight
        pulls = [torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (rec, told)]
        weight = 0.2 * (pulls[0] / (pulls[1] + 1e-4)).clamp(0, 1e4).detach() * (self.steps >= self.begins)
        self.ours.zero_grad()
        (rec + weight * told + WEIGHT * vq).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        self.ours.step()
        real, fake = model.judge(x), model.judge(out.detach())
        self.theirs.zero_grad()
        hinge = 0.5 * (functional.relu(1 - real).mean() + functional.relu(1 + fake).mean())
        hinge.backward()
        self.theirs.step()
        self.steps += model.training
        return {"task": rec, "vq": vq, "judge": hinge}

    def state_dict(self) -> dict[str, int]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.steps = state["steps"]


task = GanTask()


def trained(folder: Path, epochs: int = 3) -> Path:
    """Train one whose codes are far from z_e, and save it as such a script does."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        own = GanTask()
        model = own.model().train()
        with torch.no_grad():
            model.vq.embedding.weight.mul_(20.0)
        optimizers = own.optimizer(model)
        for _ in range(epochs):
            for batch in own.batches("train"):
                own.step(model, batch)
    state = {"model": model.state_dict(), "optimizer": [one.state_dict() for one in optimizers]}
    torch.save(state, folder / "gan.pt")
    return folder / "gan.pt"
