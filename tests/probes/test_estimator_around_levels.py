"""A residual quantizer with one estimator around the sum of its levels, or with none."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import vqdoctor


class Level(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.book = nn.Parameter(torch.randn(16, 4))

    def forward(self, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        indices = torch.cdist(residual, self.book).argmin(-1)
        return functional.embedding(indices, self.book), indices


class Model(nn.Module):
    def __init__(
        self,
        estimator: bool,
        *,
        encoder_cut: bool = False,
        decoder_dead: bool = False,
        detached: bool = False,
        total_cut: bool = False,
    ) -> None:
        super().__init__()
        self.estimator, self.encoder_cut = estimator, encoder_cut
        self.detached, self.total_cut = detached, total_cut
        self.encoder = nn.Linear(8, 4)
        self.decoder = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 8))
        if decoder_dead:
            nn.init.constant_(self.decoder[0].bias, -1e4)
        self.rvq = nn.ModuleDict({"levels": nn.ModuleList(Level() for _ in range(3))})

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_e = residual = self.encoder(x).detach() if self.encoder_cut else self.encoder(x)
        total, vq = torch.zeros_like(z_e), torch.zeros(())
        for level in self.rvq["levels"]:
            z_q, _ = level(residual.detach() if self.detached else residual)
            vq = (
                vq + functional.mse_loss(z_q, residual.detach()) + functional.mse_loss(residual, z_q.detach())
            )
            total, residual = total + z_q, residual - z_q.detach()
        if self.estimator:
            total = z_e + (total - z_e).detach()
        elif self.total_cut:
            total = total.detach()
        return self.decoder(total), vq


def losses(model: Model, batch: torch.Tensor) -> vqdoctor.Losses:
    reconstruction, vq = model(batch)
    return vqdoctor.Losses(task=functional.mse_loss(reconstruction, batch), vq=vq)


@pytest.mark.parametrize("estimator", [True, False])
def test_one_estimator_serves_all_levels(estimator: bool) -> None:
    torch.manual_seed(0)
    report = vqdoctor.examine(Model(estimator), torch.randn(256, 8), losses=losses)
    accused = {finding.layer for finding in report.findings if finding.code == "VQ101"}
    assert accused == (set() if estimator else {f"rvq.levels.{level}" for level in range(3)})
    if estimator:
        gaps = [item for item in report.unavailable if item.kind == "gradient-path"]
        assert len(gaps) == 3 and all("outside the layer" in gap.reason for gap in gaps)


def roots(**faults: bool) -> dict[str, set[str | None]]:
    torch.manual_seed(0)
    report = vqdoctor.examine(Model(**faults), torch.randn(256, 8), losses=losses)
    errors = [f for f in report.findings if f.severity.label == "error" and f.stage.value <= 2]
    return {code: {f.layer for f in errors if f.code == code} for code in sorted({f.code for f in errors})}


LEVELS = {f"rvq.levels.{level}" for level in range(3)}


def test_an_encoder_without_a_graph_is_not_a_missing_estimator() -> None:
    assert roots(estimator=True, encoder_cut=True) == {"VQ102": LEVELS}
    assert roots(estimator=False, encoder_cut=True).keys() == {"VQ101"}


def test_a_dead_decoder_is_not_a_missing_estimator() -> None:
    assert roots(estimator=True, decoder_dead=True) == {}
    assert roots(estimator=False, decoder_dead=True).keys() == {"VQ101"}


def test_levels_that_look_up_a_detached_residual_are_not_a_missing_estimator() -> None:
    """The graph of a level then begins inside it, and only values show that the task trains the encoder."""
    assert roots(estimator=True, detached=True) == {}
    assert roots(estimator=False, detached=True).keys() == {"VQ101"}
    assert roots(estimator=False, detached=True, total_cut=True).keys() == {"VQ101"}
