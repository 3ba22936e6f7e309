"""FSQ and BSQ that a model writes into its own forward, with or without a straight-through estimator."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.evidence import GradientPath, Usage
from vqdoctor.core.report import Report

LEVELS = torch.tensor([4.0, 3.0, 2.0])


def fsq(z: torch.Tensor, estimator: bool) -> torch.Tensor:
    bounded = torch.tanh(z) * LEVELS
    q = bounded.round()
    return (bounded + (q - bounded).detach() if estimator else q) / LEVELS


def bsq(z: torch.Tensor, estimator: bool) -> torch.Tensor:
    unit = functional.normalize(z, dim=-1)
    signs = torch.where(unit > 0, 1.0, -1.0) / z.shape[-1] ** 0.5
    return unit - (unit - signs).detach() if estimator else torch.sign(unit)


class Model(nn.Module):
    def __init__(self, rounds: str, *, estimator: bool = True, only_in_training: bool = False) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))
        self.decoder = nn.Sequential(nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 8))
        self.rounds, self.estimator, self.only_in_training = rounds, estimator, only_in_training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.rounds == "data":
            return self.decoder(self.encoder(x)) + 0 * torch.round(3 * x)
        z = self.encoder(x)
        if self.rounds == "symlog":
            return self.decoder(z.sign() * z.abs().log1p())
        if self.rounds == "gate":
            open_ = torch.sigmoid(z)
            return self.decoder(z * (open_ + ((open_ > 0.5).float() - open_).detach()))
        if self.rounds == "places":
            self.table = torch.arange(8.0) if not hasattr(self, "table") else self.table
            places = torch.floor(torch.sigmoid(z) * 7.99)
            return self.decoder(z + self.table[places.long()])
        estimator = self.estimator and (self.training or not self.only_in_training)
        if self.rounds == "score":
            self.score = float((torch.sigmoid(z).round() == 1).float().mean())
            return self.decoder(z)
        if self.rounds == "twice":
            first = fsq(z, estimator)
            return self.decoder(first + fsq(z - first, estimator))
        return self.decoder({"fsq": fsq, "bsq": bsq}[self.rounds](z, estimator))


def examined(model: nn.Module) -> Report:
    return vqdoctor.examine(
        model,
        torch.randn(512, 8),
        losses=lambda model, x: vqdoctor.Losses(task=functional.mse_loss(model(x), x)),
    )


@pytest.mark.parametrize("only_in_training", [False, True])
@pytest.mark.parametrize("rounds", ["fsq", "bsq"])
def test_the_vectors_that_a_model_rounds_itself_are_a_layer(rounds: str, only_in_training: bool) -> None:
    torch.manual_seed(0)
    report = examined(Model(rounds, only_in_training=only_in_training))
    (layer,) = report.layers
    usage, path = report.find(Usage, layer.name), report.find(GradientPath, layer.name)
    assert layer.layout == "implicit" and usage is not None and usage.sample_size == 512
    assert path is not None and path.estimator == "straight-through"
    assert "VQ101" not in {finding.code for finding in report.findings}


@pytest.mark.parametrize("rounds", ["fsq", "bsq"])
def test_a_missing_estimator_is_seen(rounds: str) -> None:
    torch.manual_seed(0)
    report = examined(Model(rounds, estimator=False))
    assert "VQ101" in {finding.code for finding in report.findings}


@pytest.mark.parametrize("rounds", ["score", "twice", "data", "places", "symlog", "gate"])
def test_roundings_that_are_not_a_layer(rounds: str) -> None:
    torch.manual_seed(0)
    report = examined(Model(rounds))
    assert not report.layers
    assert not [outcome.code for outcome in report.outcomes if outcome.status == "crashed"]


def test_the_model_keeps_no_mark() -> None:
    torch.manual_seed(0)
    model = Model("fsq")
    names = [name for name, _ in model.named_modules()]
    examined(model)
    assert [name for name, _ in model.named_modules()] == names
