"""Small models whose codes are used well or badly, with their faults as switches.

Everything goes through a saved file and `examine`, as a user would.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.engine import Settings, UserModel, examine
from vqdoctor.models.task import Losses

DIM, POSITIONS, BATCH = 8, 16, 24
OURS = ("VQ504", "VQ505", "VQ506", "VQ507", "VQ604", "VQ605")
DIGITS = Path(__file__).parents[1] / "sample_checkpoints" / "digits.npz"


class Codebook(nn.Module):
    """The EMA codebook of the encodec family: expiry first, then the update. `whole` mends the expiry."""

    def __init__(self, codes: int, *, threshold: float = 0.0, whole: bool = True, at: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("inited", torch.ones(1))
        self.register_buffer("cluster_size", torch.ones(codes))
        self.register_buffer("embed", torch.randn(codes, DIM) + at)
        self.register_buffer("embed_avg", self.embed.clone())
        self.threshold, self.whole = threshold, whole

    def expire(self, x: torch.Tensor) -> None:
        dead = self.cluster_size < self.threshold
        if dead.any():
            sampled = x[torch.randint(len(x), (len(dead),))]
            self.embed.data.copy_(torch.where(dead[:, None], sampled, self.embed))
            if self.whole:
                self.cluster_size.data.copy_(torch.where(dead, self.threshold, self.cluster_size))
                self.embed_avg.data.copy_(
                    torch.where(dead[:, None], sampled * self.threshold, self.embed_avg)
                )

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = z.detach().reshape(-1, DIM)
        chosen = torch.cdist(x, self.embed).argmin(1)
        codes = self.embed[chosen].view_as(z)
        if self.training:
            self.expire(x)
            votes = functional.one_hot(chosen, len(self.embed)).float()
            self.cluster_size.data.lerp_(votes.sum(0), 0.05)
            self.embed_avg.data.lerp_(votes.T @ x, 0.05)
            total = self.cluster_size.sum()
            smooth = (self.cluster_size + 1e-5) / (total + len(self.embed) * 1e-5) * total
            self.embed.data.copy_(self.embed_avg / smooth[:, None])
        return codes, chosen.view(z.shape[:2])


class Layer(nn.Module):
    def __init__(self, codes: int, **how: Any) -> None:
        super().__init__()
        self._codebook = Codebook(codes, **how)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        codes, chosen = self._codebook(z)
        return z + (codes - z).detach(), chosen, functional.mse_loss(z, codes)


class Levels(nn.Module):
    """Residual levels; in training a random number of them, drawn below `stop`."""

    def __init__(self, layers: list[Layer], stop: int | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.stop = len(layers) + 1 if stop is None else stop

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, None, torch.Tensor]:
        keep = random.randrange(1, self.stop) if self.training else len(self.layers)
        rest, out, loss = z, torch.zeros_like(z), torch.zeros(())
        for layer in self.layers[:keep]:
            codes, _, level_loss = layer(rest)
            rest, out, loss = rest - codes.detach(), out + codes, loss + level_loss
        return z + (out - z).detach(), None, loss


class Model(nn.Module):
    def __init__(self, vq: nn.Module, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder = encoder or nn.Linear(DIM, DIM)
        self.vq = vq
        self.head = nn.Linear(DIM, 10)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, _, loss = self.vq(self.encoder(x))
        return self.head(z_q.mean(1)), loss.sum()


class Task:
    """Ten classes of sequences; each position is around one of 30 places, which the class makes likelier."""

    vq_weight = 0.25

    def __init__(self, build: Callable[[], nn.Module], x: torch.Tensor | None = None) -> None:
        generator = torch.Generator().manual_seed(7)
        self.build = build
        self.y = torch.arange(480) % 10
        places = 2 * torch.randn(30, DIM, generator=generator)
        favour = torch.randint(3, (480, POSITIONS), generator=generator) + 3 * self.y[:, None]
        anywhere = torch.randint(30, (480, POSITIONS), generator=generator)
        place = torch.where(torch.rand(480, POSITIONS, generator=generator) < 0.7, favour, anywhere)
        noise = torch.randn(480, POSITIONS, DIM, generator=generator)
        self.x = places[place] + 0.3 * noise if x is None else x

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return self.build()

    def batches(self, split: str) -> Iterator[Any]:
        if split == "stop":
            return iter(())
        rows = slice(0, 480 if split == "train" else 240)
        return zip(self.x[rows].split(BATCH), self.y[rows].split(BATCH), strict=True)

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        logits, vq = model(batch[0])
        return Losses(task=functional.cross_entropy(logits, batch[1]), vq=vq, logits=logits, labels=batch[1])


def trained(task: Task, steps: int = 120, learning_rate: float = 3e-3) -> nn.Module:
    model = task.model().train()
    adam = torch.optim.Adam(model.parameters(), lr=learning_rate)
    batches = [batch for _ in range(steps // 20 + 1) for batch in task.batches("train")]
    for batch in batches[:steps]:
        losses = task.losses(model, batch)
        adam.zero_grad()
        (losses.task + task.vq_weight * losses.vq).backward()
        adam.step()
    return model


def examined(path: Path, task: Task, model: nn.Module, probe_steps: int = 0, **more: Any) -> Report:
    torch.save({"model": model.state_dict(), **more}, path / "model.pt")
    report = examine(
        path / "model.pt", user_model=UserModel(task=task), settings=Settings(probe_steps=probe_steps)
    )
    assert [o for o in report.outcomes if o.status == "crashed"] == []
    return report


def found(report: Report, *codes: str) -> dict[str, Severity]:
    return {f.code: f.severity for f in report.findings if f.code in (codes or OURS)}


def build_and_examine(path: Path, build: Callable[[], nn.Module], steps: int = 120, **more: Any) -> Report:
    task = Task(build, more.pop("x", None))
    return examined(path, task, trained(task, steps), **more)
