"""Codes in train and in eval mode, in really trained models."""

from __future__ import annotations

import pytest
import torch
from live_models import live, trained
from small_training import Digits
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.probes.model import train_eval_gap


class Noise(nn.Module):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z + 3 * torch.randn_like(z) if self.training else z


class With(Digits):
    """The reference model with one more module between its encoder and its VQ layer."""

    def __init__(self, more: nn.Module) -> None:
        super().__init__(vq_weight=0.1, decay=0.9)
        self.more = more

    def model(self) -> nn.Module:
        model = super().model()
        model.encoder.add_module("more", self.more)
        return model


@pytest.mark.parametrize(
    ("more", "epochs", "fires"),
    [
        (nn.BatchNorm2d(8, momentum=1e-4), 4, True),
        (nn.BatchNorm2d(8), 20, False),
        (Noise(), 4, True),
        (nn.Dropout(0.2), 20, False),
        (nn.Identity(), 4, False),
    ],
)
def test_stale_statistics_and_strong_noise_are_told_from_health(
    more: nn.Module, epochs: int, fires: bool
) -> None:
    task = With(more)
    evidence, findings = live(trained(task, epochs), task, (train_eval_gap,), "VQ606")
    assert "train-eval-gap" in evidence
    assert (set(findings) == {"VQ606"}) is fires


class Soft(nn.Module):
    """Image tokens by Gumbel samples over a few positions, and argmax in eval mode."""

    def __init__(self, tau: float, *, hard: bool) -> None:
        super().__init__()
        self.logits, self.embedding = nn.Linear(12, 16), nn.Embedding(16, 8)
        self.tau, self.hard = tau, hard

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.logits(x)
        weights = functional.one_hot(logits.argmax(-1), 16).float()
        if self.training:
            weights = functional.gumbel_softmax(logits, self.tau, hard=self.hard)
        return weights @ self.embedding.weight, logits.argmax(-1)


class Tokens(nn.Module):
    def __init__(self, tau: float, *, hard: bool) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(10, 48), nn.ReLU(), nn.Linear(48, 12))
        self.quantizer = Soft(tau, hard=hard)
        self.decoder = nn.Sequential(nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.quantizer(self.encoder(x))[0])


def token_losses(model: nn.Module, x: torch.Tensor) -> vqdoctor.Losses:
    return vqdoctor.Losses(task=functional.mse_loss(model(x), x), vq=None)


@pytest.mark.parametrize(
    ("tau", "hard", "fires"), [(20.0, False, True), (1.0, True, False), (0.1, False, False)]
)
def test_soft_samples_that_the_decoder_learned_from(tau: float, hard: bool, fires: bool) -> None:
    torch.manual_seed(0)
    model = Tokens(tau, hard=hard)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    centres = torch.randn(12, 10)
    x = centres[torch.randint(12, (256, 4))] + 0.1 * torch.randn(256, 4, 10)
    for _ in range(200):
        optimizer.zero_grad()
        token_losses(model, x).task.backward()
        optimizer.step()
    report = vqdoctor.examine(model, x[:128], losses=token_losses)
    found = [f for f in report.findings if f.code == "VQ606"]
    assert bool(found) is fires
    assert all("puts out vectors" in f.message for f in found)
