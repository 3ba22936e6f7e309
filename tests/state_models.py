"""Small models with faults in how a codebook is started, kept and fed, as switches.

Everything goes through a saved file and `examine`, bare and live, as a user would.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.core.settings import UserModel
from vqdoctor.engine import examine
from vqdoctor.models.task import Losses

CODES, DIM, POSITIONS, BATCH = 64, 8, 6, 24


class EmaVQ(nn.Module):
    """An EMA quantizer of [B, N, D] with the faults as switches."""

    def __init__(self, *, own_init: bool = False, flag_saved: bool = True, eval_writes: str = "") -> None:
        super().__init__()
        self.register_buffer("embedding", torch.randn(CODES, DIM))
        self.register_buffer("ema_cluster_size", torch.ones(CODES))
        self.register_buffer("ema_embedding_sum", self.embedding.clone())
        self.register_buffer("started", torch.tensor(not own_init), persistent=flag_saved)
        self.eval_writes = eval_writes

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        flat = z.detach().reshape(-1, DIM)
        if self.training and not self.started:
            self.embedding.copy_(flat[torch.randperm(len(flat))[:CODES]])
            self.ema_embedding_sum.copy_(self.embedding * self.ema_cluster_size[:, None])
            self.started.fill_(True)
        chosen = torch.cdist(flat, self.embedding).argmin(1)
        codes = self.embedding[chosen].view_as(z)
        votes = functional.one_hot(chosen, CODES).float()
        if self.training or self.eval_writes:
            self.ema_cluster_size.lerp_(votes.sum(0), 0.05)
        if self.training or self.eval_writes == "all":
            self.ema_embedding_sum.lerp_(votes.T @ flat, 0.05)
            self.embedding.copy_(self.ema_embedding_sum / (self.ema_cluster_size[:, None] + 1e-5))
        loss = functional.mse_loss(z, codes)
        return z + (codes - z).detach(), chosen.view(z.shape[:2]), loss


class GradientVQ(nn.Module):
    """The codebook is a parameter, started in the data's scale."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(CODES, DIM))

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        chosen = torch.cdist(z.detach(), self.embedding.detach().expand(len(z), -1, -1)).argmin(-1)
        codes = self.embedding[chosen]
        loss = functional.mse_loss(codes, z.detach()) + 0.25 * functional.mse_loss(z, codes.detach())
        return z + (codes - z).detach(), chosen, loss


class Model(nn.Module):
    def __init__(self, vq: nn.Module) -> None:
        super().__init__()
        self.encoder = nn.Linear(DIM, DIM)
        self.vq = vq
        self.head = nn.Linear(DIM, 10)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, _, loss = self.vq(self.encoder(x))
        return self.head(z_q.mean(1)), loss.sum()


class Task:
    """Ten classes of sequences around ten centres; a fixed order of batches, sorted by class or not."""

    vq_weight = 0.25

    def __init__(self, vq: Any, *, sorted_by_class: bool = False, weight_decay: float = 0.0) -> None:
        self.vq, self.weight_decay = vq, weight_decay
        generator = torch.Generator().manual_seed(7)
        y = torch.arange(960) % 10
        centres = 2 * torch.randn(10, POSITIONS, DIM, generator=generator)
        x = centres[y] + torch.randn(960, POSITIONS, DIM, generator=generator)
        order = y.argsort(stable=True) if sorted_by_class else torch.randperm(960, generator=generator)
        self.x, self.y = x[order], y[order]

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return Model(self.vq())

    def batches(self, split: str) -> Iterator[Any]:
        if split == "stop":
            return iter(())
        rows = slice(None) if split == "train" else slice(0, 240)
        return zip(self.x[rows].split(BATCH), self.y[rows].split(BATCH), strict=True)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), lr=3e-3, weight_decay=self.weight_decay)

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        logits, vq = model(batch[0])
        return Losses(task=functional.cross_entropy(logits, batch[1]), vq=vq, logits=logits, labels=batch[1])


def trained(task: Task, steps: int) -> dict[str, Any]:
    """Train in the task's own order, and return what a user would save."""
    model = task.model().train()
    optimizer = task.optimizer(model)
    done = 0
    while done < steps:
        for batch in task.batches("train"):
            losses = task.losses(model, batch)
            optimizer.zero_grad()
            (losses.task + task.vq_weight * losses.vq).backward()
            optimizer.step()
            done += 1
            if done == steps:
                break
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def saved(path: Path, task: Task, steps: int) -> Path:
    torch.save(trained(task, steps), path / "model.pt")
    return path / "model.pt"


def live(path: Path, task: Task) -> Report:
    return examine(path, user_model=UserModel(task=task))


def found(report: Report, *codes: str) -> dict[str, Severity]:
    """The findings among `codes`; a crashed check or probe is a failure of the test."""
    assert [o for o in report.outcomes if o.status == "crashed"] == []
    return {f.code: f.severity for f in report.findings if f.code in codes}


OURS = ("VQ305", "VQ306", "VQ307", "VQ308", "VQ402", "VQ403")
