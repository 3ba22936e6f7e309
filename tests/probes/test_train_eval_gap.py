"""Codes in train and in eval mode, in really trained models."""

from __future__ import annotations

import pytest
import torch
from live_models import live, trained
from small_training import Digits
from torch import nn

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
