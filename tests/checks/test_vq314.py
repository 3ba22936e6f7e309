"""VQ314 input-not-scaled: raw input, beside a model that divides it itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from judged import says
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.evidence import DataMatch, Evidence, FirstInput, TaskMetrics, WeightDecay
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine import examine

FAR = DataMatch.healthy(data_rms=10.0)
STEPS = WeightDecay.healthy(reach=1.0)
RAW = FirstInput.healthy(rms=30.0)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([FAR, STEPS, RAW], "error"),
        ([FAR.replace(data_rms=9.9), STEPS, RAW], "passes"),
        ([FAR, STEPS, RAW.replace(rms=29.0)], "passes"),
        ([FAR, STEPS.replace(reach=None), RAW], "cannot judge"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ314", *evidence) == expected


UNITS = FirstInput.healthy(rms=30.0, channel_rank=2.0, scaled_rank=4.0)
BEHIND = DataMatch.healthy(quantization_error=0.4, data_effective_rank=2.4)
FAILS = TaskMetrics.healthy(accuracy=0.6, chance_accuracy=0.25)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([BEHIND, UNITS, FAILS], "error"),
        ([BEHIND, UNITS], "error"),
        ([BEHIND, UNITS, STEPS.replace(reach=100.0), FAILS], "error"),
        ([BEHIND, UNITS, STEPS.replace(reach=100.0), FAILS.replace(accuracy=0.8)], "passes"),
        ([BEHIND, UNITS, FAILS.replace(accuracy=0.8)], "cannot judge"),
        ([BEHIND, UNITS.replace(rms=29.0), FAILS], "cannot judge"),
        ([BEHIND, UNITS.replace(channel_rank=2.6, scaled_rank=6.0), FAILS], "warning"),
        ([BEHIND, UNITS.replace(scaled_rank=3.9), FAILS], "warning"),
        ([BEHIND, UNITS.replace(channel_rank=None), FAILS], "warning"),
        ([BEHIND.replace(quantization_error=0.39), UNITS, FAILS], "cannot judge"),
        ([BEHIND.replace(data_effective_rank=2.6), UNITS, FAILS], "warning"),
        # a raw input of any form, where more than half of the task is still to do
        ([BEHIND, UNITS.replace(channel_rank=None), FAILS.replace(accuracy=0.63)], "cannot judge"),
    ],
)
def test_channels_of_different_units(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ314", *evidence) == expected


class Plant(nn.Module):
    """A classifier of measurements in raw units, which may standardise them itself."""

    def __init__(self, scaled: bool) -> None:
        super().__init__()
        self.scale = nn.BatchNorm1d(6, affine=False, momentum=None) if scaled else nn.Identity()
        self.encoder, self.head = nn.Linear(6, 3), nn.Linear(3, 4)
        self.quantize = nn.Module()
        self.quantize.embedding = nn.Embedding(16, 3)
        self.quantize.forward = self.look_up  # type: ignore[method-assign]

    def look_up(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes = self.quantize.embedding.weight
        z_q = functional.embedding(torch.cdist(z, codes).argmin(1), codes)
        return z + (z_q - z).detach(), functional.mse_loss(z, z_q)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, loss = self.quantize(self.encoder(self.scale(x)))
        return self.head(z_q), loss


class Measurements:
    vq_weight = 0.1

    def __init__(self, scaled: bool) -> None:
        draw = torch.Generator().manual_seed(0)
        units, middle = (
            torch.tensor([250.0, 60, 5, 0.4, 0.09, 0.03]),
            torch.tensor([1e5, 1500, 64, 2, 0.4, 0.1]),
        )
        self.x = middle + units * torch.randn(256, 6, generator=draw)
        self.y = torch.randint(4, (256,), generator=draw)
        self.scaled = scaled

    def model(self) -> Plant:
        return Plant(self.scaled)

    def batches(self, split: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(zip(self.x.split(64), self.y.split(64), strict=True))

    def losses(self, model: Plant, batch: tuple[torch.Tensor, torch.Tensor]) -> vqdoctor.Losses:
        logits, loss = model(batch[0])
        task = functional.cross_entropy(logits, batch[1])
        return vqdoctor.Losses(task=task, vq=loss, logits=logits, labels=batch[1])


@pytest.mark.parametrize("scaled", [False, True])
def test_the_channels_that_the_first_layer_gets(scaled: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    task, model = Measurements(scaled), Plant(scaled)
    model(task.x)  # takes the statistics of the data
    torch.save({"model": model.state_dict()}, tmp_path / "model.pt")
    user: Any = UserModel(task=task)
    report = examine(tmp_path / "model.pt", user_model=user, settings=Settings(select=("VQ314", "VQ507")))
    first = report.find(FirstInput, None)
    assert first is not None and first.channel_rank is not None
    assert first.scaled_rank == pytest.approx(6.0, abs=0.2)
    assert first.channel_rank == pytest.approx(6.0 if scaled else 1.2, abs=0.3)
    assert [f.code for f in report.findings] == ([] if scaled else ["VQ314"])


class Pictures(nn.Module):
    """An autoencoder of pictures of 0 to 255, which may scale them itself."""

    def __init__(self, scaled: bool) -> None:
        super().__init__()
        self.scaled = scaled
        self.encoder, self.decoder = nn.Conv2d(1, 8, 4, 4), nn.ConvTranspose2d(8, 1, 4, 4)
        self.quantize = nn.Module()
        self.quantize.embedding = nn.Embedding(64, 8)
        self.quantize.forward = self.look_up  # type: ignore[method-assign]

    def look_up(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = z.movedim(1, -1)
        codes = self.quantize.embedding.weight
        z_q = functional.embedding(torch.cdist(rows.flatten(0, 2), codes).argmin(1), codes).view_as(rows)
        loss = functional.mse_loss(z_q, rows.detach()) + 0.25 * functional.mse_loss(rows, z_q.detach())
        return (rows + (z_q - rows).detach()).movedim(-1, 1), loss

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = x / 255 if self.scaled else x
        z_q, loss = self.quantize(self.encoder(x))
        return functional.mse_loss(self.decoder(z_q), x), loss


def losses(model: Pictures, batch: torch.Tensor) -> vqdoctor.Losses:
    task, vq = model(batch)
    return vqdoctor.Losses(task=task, vq=vq)


@pytest.mark.parametrize("scaled", [True, False])
def test_a_model_that_divides_by_255_itself_passes(scaled: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, pictures = Pictures(scaled), torch.rand(256, 1, 8, 8) * 255
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(60):
        found = losses(model, pictures[torch.randint(0, 256, (32,))])
        optimizer.zero_grad()
        (found.task + found.vq).backward()
        optimizer.step()
    path = tmp_path / "model.pt"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    report = vqdoctor.examine(path, pictures, model=Pictures(scaled), losses=losses)
    first = report.find(FirstInput)
    assert first is not None and first.module == "encoder"
    assert first.largest == pytest.approx(1.0 if scaled else 255.0, rel=0.01)
    assert ("VQ314" in {finding.code for finding in report.findings}) is not scaled
    if not scaled:
        assert report.roots()[0].code == "VQ314"
