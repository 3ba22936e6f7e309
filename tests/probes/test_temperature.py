"""A Gumbel layer whose temperature has fallen so low that its draws pass no gradient back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.evidence import GradientPath

K, DIM = 16, 6


class Gumbel(nn.Module):
    def __init__(self, tau: float, kept: str) -> None:
        super().__init__()
        self.proj, self.embed, self.kept = nn.Linear(DIM, K), nn.Embedding(K, DIM), kept
        self.proj.weight.data *= 6  # as a training makes the choices sure
        if kept == "buffer":
            self.register_buffer("tau", torch.tensor(tau))
        else:
            setattr(self, kept, tau)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        logits = self.proj(z)
        tau = float(self.tau if self.kept == "buffer" else getattr(self, self.kept))
        soft = functional.gumbel_softmax(logits, tau=tau) if self.training else None
        hard = functional.one_hot(logits.argmax(-1), K).float()
        return (hard if soft is None else soft) @ self.embed.weight


class Model(nn.Module):
    def __init__(self, tau: float, kept: str) -> None:
        super().__init__()
        self.encoder, self.vq, self.decoder = nn.Linear(4, DIM), Gumbel(tau, kept), nn.Linear(DIM, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.vq(self.encoder(x)))


class Task:
    vq_weight = 0.0

    def __init__(self, tau: float, kept: str) -> None:
        self.tau, self.kept = tau, kept

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return Model(self.tau, self.kept)

    def batches(self, split: str) -> Iterator[torch.Tensor]:
        return iter(torch.randn(128, 8, 4, generator=torch.Generator().manual_seed(len(split))).split(32))

    def losses(self, model: Any, batch: torch.Tensor) -> vqdoctor.Losses:
        return vqdoctor.Losses(task=functional.mse_loss(model(batch), batch), vq=torch.zeros(()))


@pytest.mark.parametrize(
    ("tau", "kept", "found"),
    [
        (1e-3, "buffer", True),
        (1e-3, "temperature", True),
        (1e-3, "sharpness", False),  # a name that tells nothing
        (0.5, "buffer", False),
    ],
)
def test_at_a_temperature_of_one_the_gradient_passes(
    tau: float, kept: str, found: bool, tmp_path: Path
) -> None:
    task = Task(tau, kept)
    torch.save(task.model().state_dict(), tmp_path / "model.pt")
    report = vqdoctor.examine(tmp_path / "model.pt", task=task)
    path = report.find(GradientPath, "vq")
    assert path is not None and (path.zero_share > 0.5) is (tau < 0.1)
    assert path.temperature_name == ({"buffer": "tau"}.get(kept, kept) if found else "")
    causes = [finding for finding in report.findings if finding.code == "VQ101"]
    assert bool(causes) is (tau < 0.1)
    if found:
        assert path.temperature == pytest.approx(tau) and path.zero_share_at_one == 0
        assert causes[0].remedies == ("raise-temperature",)
