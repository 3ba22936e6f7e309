"""A new user's tokenizer whose encoder has a gain of 40: as good as without the gain, trained as long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_training import DIGITS
from torch import nn
from torch.nn import functional

from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine import examine
from vqdoctor.engine.retrain import retrain
from vqdoctor.models.task import Losses

pytestmark = pytest.mark.accept
GAIN, EPOCHS = 40.0, 15
WITHIN = 1.05


class Quantizer(nn.Module):
    """The layer of the first VQ-VAEs: codes by gradient, from U(±1/K)."""

    def __init__(self, codes: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(codes, dim)
        nn.init.uniform_(self.table.weight, -1 / codes, 1 / codes)

    def forward(self, z_e: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        vectors = z_e.permute(0, 2, 3, 1)
        flat = vectors.reshape(-1, vectors.shape[-1])
        z_q = self.table(torch.cdist(flat, self.table.weight).argmin(1).view(vectors.shape[:-1]))
        loss = functional.mse_loss(z_q, vectors.detach()) + 0.25 * functional.mse_loss(vectors, z_q.detach())
        return (vectors + (z_q - vectors).detach()).permute(0, 3, 1, 2), loss


class Tokenizer(nn.Module):
    """[B, 1, 8, 8] to 4×4 codes and back."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain
        self.encoder = nn.Sequential(nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1))
        self.quantizer = Quantizer(256, 16)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(16, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 1, 3, 1, 1)
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, loss = self.quantizer(self.gain * self.encoder(x))
        return self.decoder(z_q), loss


class Reconstruction:
    """The user's task."""

    vq_weight: float | None = 1.0

    def __init__(self, gain: float) -> None:
        self.gain = gain
        x = torch.from_numpy(np.load(DIGITS)["x"]).float()
        self.splits = {"train": x[:1200].split(64), "val": x[1200:].split(64)}

    def model(self) -> nn.Module:
        return Tokenizer(self.gain)

    def batches(self, split: str) -> Any:
        return self.splits.get(split, ())

    def losses(self, model: nn.Module, x: torch.Tensor) -> Losses:
        output, vq = model(x)
        return Losses(task=functional.mse_loss(output, x), vq=vq)


def trained(task: Reconstruction, epochs: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = task.model()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    x = torch.cat(task.splits["train"])
    for _ in range(epochs):
        for batch in x[torch.randperm(len(x))].split(64):
            found = task.losses(model, batch)
            optimizer.zero_grad()
            assert found.vq is not None
            (found.task + found.vq).backward()
            optimizer.step()
    return model, optimizer


def test_it_comes_within_a_twentieth_of_a_training_without_the_gain(tmp_path: Path) -> None:
    task = Reconstruction(GAIN)
    model, optimizer = trained(task, EPOCHS)
    sick = tmp_path / "sick.pt"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": EPOCHS}, sick)
    user_model = UserModel(task=task)
    assert examine(sick, user_model=user_model).verdict == "collapsed"
    report = retrain(sick, tmp_path / "out.pt", user_model=user_model, settings=Settings())
    done = report.retraining
    assert done is not None and done.before is not None and done.after is not None
    by_hand = Reconstruction(1.0)
    model, _ = trained(by_hand, len(done.epochs))
    with torch.no_grad():
        losses = [(len(x), float(by_hand.losses(model.eval(), x).task)) for x in by_hand.splits["val"]]
    loss = sum(size * value for size, value in losses) / sum(size for size, _ in losses)
    print(f"{done.before.loss:.4f} → {done.after.loss:.4f} in {len(done.epochs)} epochs, by hand {loss:.4f}")
    assert not done.cured or done.after.loss <= WITHIN * loss
    assert done.cured or any(f.severity.name == "ERROR" for f in report.roots()), "else with its cause"
    assert done.cured and report.verdict == "healthy"
