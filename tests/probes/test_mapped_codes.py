"""A home-made layer that maps its vectors on the way in and out, and returns no codes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.evidence import Usage

WIDTH, DIM, CODES = 24, 5, 32


class Mapped(nn.Module):
    def __init__(self, *, estimator: bool) -> None:
        super().__init__()
        self.inward, self.outward = nn.Linear(WIDTH, DIM), nn.Linear(DIM, WIDTH)
        self.table, self.estimator = nn.Embedding(CODES, DIM), estimator
        nn.init.normal_(self.table.weight, std=0.5)

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = self.inward(hidden)
        codes = torch.cdist(z.flatten(0, 1), self.table.weight).argmin(-1).view(z.shape[:2])
        z_q = self.table(codes)
        loss = functional.mse_loss(z_q, z.detach()) + 0.25 * functional.mse_loss(z, z_q.detach())
        return self.outward(z + (z_q - z).detach() if self.estimator else z_q.detach()), loss


class Model(nn.Module):
    def __init__(self, *, estimator: bool) -> None:
        super().__init__()
        self.encoder, self.vq = nn.Linear(10, WIDTH), Mapped(estimator=estimator)
        self.decoder = nn.Linear(WIDTH, 10)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, loss = self.vq(self.encoder(x))
        return self.decoder(z_q), loss


def losses(model: nn.Module, x: torch.Tensor) -> vqdoctor.Losses:
    out, vq = model(x)
    return vqdoctor.Losses(task=functional.mse_loss(out, x), vq=vq)


@pytest.fixture
def x() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(200, 6, 10)


def test_its_codes_are_seen_at_the_table(x: torch.Tensor) -> None:
    model = Model(estimator=True)
    report = vqdoctor.examine(model, x, losses=losses)
    with torch.no_grad():
        z = model.vq.inward(model.encoder(x)).flatten(0, 1)
        used = torch.cdist(z, model.vq.table.weight).argmin(-1).unique()
    (layer,) = report.layers
    usage = report.find(Usage, layer.name)
    assert usage is not None and (usage.used, usage.sample_size) == (len(used), len(z))
    assert "VQ101" not in {finding.code for finding in report.findings}
    assert not [outcome for outcome in report.outcomes if outcome.status == "crashed"]


def test_a_missing_estimator_is_found_all_the_same(x: torch.Tensor) -> None:
    report = vqdoctor.examine(Model(estimator=False), x, losses=losses)
    assert "VQ101" in {finding.code for finding in report.findings}
