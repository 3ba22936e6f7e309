"""VQ111 encoder-never-trained: limits, and really trained models with and without their encoder."""

from __future__ import annotations

import pytest
import torch
from judged import problems, says
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.evidence import EncoderStart
from vqdoctor.core.levels import Confidence

START = EncoderStart.healthy()

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (START.replace(before_drawn=0.91), "warning"),
        (START.replace(before_drawn=0.89), "passes"),
        (START.replace(before_drawn=1.0, after_drawn=0.49, listed=None), "warning"),
        (START.replace(before_drawn=1.0, after_drawn=0.51), "passes"),
        (START.replace(listed=0.09), "note"),
        (START.replace(listed=0.11), "passes"),
        (START.replace(listed=None), "passes"),
        # a model as it was built says nothing about its optimizer
        (START.replace(before_drawn=1.0, after_drawn=1.0, listed=0.0), "passes"),
    ],
)
def test_limits(evidence: EncoderStart, expected: str) -> None:
    assert says("VQ111", evidence) == expected


def test_names_that_contradict_the_order_lower_the_confidence() -> None:
    def confidence(evidence: EncoderStart) -> Confidence:
        (problem,) = problems("VQ111", evidence.replace(before_drawn=1.0))
        return problem.confidence

    assert confidence(START.replace(source="batch")) == Confidence.HIGH
    assert confidence(START) == Confidence.MEDIUM
    assert confidence(START.replace(contradicted=True)) == Confidence.LOW


class Codebook(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 8)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes = self.embedding(torch.cdist(z.detach(), self.embedding.weight.detach()).argmin(-1))
        loss = functional.mse_loss(codes, z.detach()) + 0.25 * functional.mse_loss(z, codes.detach())
        return z + (codes - z).detach(), loss


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(12, 48), nn.Tanh(), nn.Linear(48, 8))
        self.vq = Codebook()
        self.decoder = nn.Sequential(nn.Linear(8, 48), nn.Tanh(), nn.Linear(48, 12))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, loss = self.vq(self.encoder(x))
        return self.decoder(z_q), loss


def losses(model: nn.Module, x: torch.Tensor) -> vqdoctor.Losses:
    out, vq = model(x)
    return vqdoctor.Losses(task=functional.mse_loss(out, x), vq=vq)


def trained(form: str) -> tuple[Model, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = Model()
    if form == "frozen":
        model.encoder.requires_grad_(False)
    parts = [model.vq, model.decoder] if form == "left out" else [model]
    optimizer = torch.optim.Adam([p for part in parts for p in part.parameters() if p.requires_grad], lr=3e-3)
    x = torch.randn(256, 4) @ torch.randn(4, 12)
    for _ in range(60):
        total = sum(vars(losses(model, x)).get(name) for name in ("task", "vq"))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("form", ["sound", "left out", "frozen"])
def test_trained_models(form: str, tmp_path) -> None:
    model, optimizer = trained(form)
    path = tmp_path / "model.pt"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    bare = [f.severity.label for f in vqdoctor.examine(path).findings if f.code == "VQ111"]
    live_report = vqdoctor.examine(model, torch.randn(64, 12), losses=losses)
    live = [f.severity.label for f in live_report.findings if f.code == "VQ111"]
    assert bare == live == ([] if form == "sound" else ["warning"])
