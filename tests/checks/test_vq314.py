"""VQ314 input-not-scaled: raw input, beside a model that divides it itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from judged import says
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.evidence import DataMatch, Evidence, FirstInput, WeightDecay

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
