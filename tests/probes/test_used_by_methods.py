"""A layer used through `encode` and `decode` alone: the estimator stands in the model, or is missing."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import vqdoctor


class Table(nn.Module):
    """Codes by two methods; a parameter, or a buffer that an EMA would write."""

    def __init__(self, trained: bool) -> None:
        super().__init__()
        codes = torch.randn(16, 4)
        self.register_parameter("embedding", nn.Parameter(codes) if trained else None)
        if not trained:
            del self.embedding
            self.register_buffer("embedding", codes)

    def encode(self, z: torch.Tensor) -> torch.Tensor:
        return torch.cdist(z, self.embedding).argmin(-1)

    def decode(self, indices: torch.Tensor) -> torch.Tensor:
        return functional.embedding(indices, self.embedding)


class Model(nn.Module):
    def __init__(self, trained: bool, estimator: bool) -> None:
        super().__init__()
        self.estimator = estimator
        self.encoder, self.quantizer, self.decoder = nn.Linear(8, 4), Table(trained), nn.Linear(4, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_e = self.encoder(x)
        z_q = self.quantizer.decode(self.quantizer.encode(z_e))
        vq = functional.mse_loss(z_e, z_q.detach()) + functional.mse_loss(z_q, z_e.detach())
        if self.estimator:
            z_q = z_e + (z_q - z_e).detach()
        return self.decoder(z_q), vq


def losses(model: Model, batch: torch.Tensor) -> vqdoctor.Losses:
    reconstruction, vq = model(batch)
    return vqdoctor.Losses(task=functional.mse_loss(reconstruction, batch), vq=vq)


def without_vq_loss(model: Model, batch: torch.Tensor) -> vqdoctor.Losses:
    return vqdoctor.Losses(task=functional.mse_loss(model(batch)[0], batch))


@pytest.mark.parametrize("trained", [True, False], ids=["parameter", "buffer"])
@pytest.mark.parametrize("estimator", [True, False], ids=["estimator", "none"])
def test_a_missing_estimator_is_seen_around_the_methods(trained: bool, estimator: bool) -> None:
    torch.manual_seed(0)
    report = vqdoctor.examine(Model(trained, estimator), torch.randn(256, 8), losses=losses)
    assert ("VQ101" in {finding.code for finding in report.findings}) is not estimator
    assert not [outcome for outcome in report.outcomes if outcome.status == "crashed"]


def test_a_model_that_has_no_training_code_is_not_accused() -> None:
    """As the ports of EnCodec and Mimi: `encode` and `decode`, and no loss that pulls at z_e."""
    torch.manual_seed(0)
    report = vqdoctor.examine(Model(True, estimator=False), torch.randn(256, 8), losses=without_vq_loss)
    assert "VQ101" not in {finding.code for finding in report.findings}
    (gap,) = (item for item in report.unavailable if item.kind == "gradient-path")
    assert "encode and decode methods" in gap.reason
