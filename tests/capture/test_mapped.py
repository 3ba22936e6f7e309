"""A frozen table that a trained matrix maps to the codes is no codebook; a frozen codebook is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.report import Report

K, DIM = 32, 6


class Quantizer(nn.Module):
    """Codes made of a table that requires no gradient: by a trained map, or the rows as they are."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.codebook = nn.Parameter(torch.randn(K, DIM), requires_grad=False)
        self.basis = nn.Parameter(torch.randn(DIM, DIM))
        self.mix = nn.Sequential(nn.Linear(DIM, 2 * DIM), nn.ReLU(), nn.Linear(2 * DIM, DIM))
        self.project_in, self.project_out = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)

    def codes(self) -> torch.Tensor:
        if self.how in ("matrix", "rows, embedded by a map"):
            return self.codebook @ self.basis
        return self.mix(self.codebook) if self.how == "network" else self.codebook

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        around, codes = self.how in ("projected around", "one-hot"), self.codes()
        z = self.project_in(z) if around else z
        compared = self.codebook if self.how == "rows, embedded by a map" else codes
        chosen = torch.cdist(z.flatten(0, 1), compared).argmin(1).view(z.shape[:2])
        one_hot = functional.one_hot(chosen, K).float()
        z_q = one_hot @ codes if self.how == "one-hot" else codes[chosen]
        loss = functional.mse_loss(z_q, z.detach()) + 0.25 * functional.mse_loss(z, z_q.detach())
        z_q = z + (z_q - z).detach()
        return self.project_out(z_q) if around else z_q, loss


class Model(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.encoder, self.vq, self.decoder = nn.Linear(4, DIM), Quantizer(how), nn.Linear(DIM, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, loss = self.vq(self.encoder(x))
        return self.decoder(z_q), loss


class Task:
    vq_weight = 1.0

    def __init__(self, how: str) -> None:
        self.how = how

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return Model(self.how)

    def batches(self, split: str) -> Iterator[torch.Tensor]:
        return iter(torch.randn(128, 8, 4, generator=torch.Generator().manual_seed(len(split))).split(32))

    def losses(self, model: Any, batch: torch.Tensor) -> vqdoctor.Losses:
        x, loss = model(batch)
        return vqdoctor.Losses(task=functional.mse_loss(x, batch), vq=loss)


def examined(how: str, tmp_path: Path, **options: Any) -> Report:
    task = Task(how)
    torch.save({"model": task.model().state_dict()}, tmp_path / "model.pt")
    return vqdoctor.examine(tmp_path / "model.pt", task=task, **options)


@pytest.mark.parametrize("how", ["matrix", "network"])
def test_a_table_that_a_trained_map_makes_the_codes_of_is_no_codebook(how: str, tmp_path: Path) -> None:
    report = examined(how, tmp_path)
    assert [layer.layout for layer in report.layers] == ["implicit"]
    assert not {"VQ103", "VQ301", "VQ306"} & {finding.code for finding in report.findings}
    (note,) = (note for note in report.notes if "not a codebook" in note)
    assert ("vq.basis" if how == "matrix" else "vq.mix.0.weight") in note


@pytest.mark.parametrize("how", ["rows", "projected around", "one-hot", "rows, embedded by a map"])
def test_a_frozen_codebook_stays_one(how: str, tmp_path: Path) -> None:
    report = examined(how, tmp_path)
    assert [layer.num_codes for layer in report.layers] == [K]
    assert "VQ103" in {finding.code for finding in report.findings}


def test_a_table_that_the_user_names_is_a_codebook(tmp_path: Path) -> None:
    report = examined("matrix", tmp_path, codebook_key="model.vq.codebook")
    assert [layer.num_codes for layer in report.layers] == [K]
