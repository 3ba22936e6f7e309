"""VQ111 encoder-never-trained: limits, and really trained models with and without their encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from judged import problems, says
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.evidence import EncoderStart, OptimizerMemory
from vqdoctor.core.levels import Confidence

START = EncoderStart.healthy()

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (START.replace(before_drawn=0.91, listed=None), "warning"),
        (START.replace(before_drawn=0.91, listed=0.11), "cannot judge"),
        (START.replace(before_drawn=0.91, listed=0.09), "warning"),
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


@pytest.mark.parametrize(("remembered", "expected"), [(0.09, "warning"), (0.11, "cannot judge")])
def test_the_optimizers_memory_outranks_its_list(remembered: float, expected: str) -> None:
    """A frozen parameter may be listed, and never has a gradient."""
    memory = OptimizerMemory.healthy(layer=None, before_with_state=remembered)
    assert says("VQ111", START.replace(before_drawn=1.0, listed=1.0), memory) == expected


def test_names_that_contradict_the_order_lower_the_confidence() -> None:
    def confidence(evidence: EncoderStart) -> Confidence:
        (problem,) = problems("VQ111", evidence.replace(before_drawn=1.0, listed=None))
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


def train(model: Model, optimizer: torch.optim.Optimizer, steps: int = 60) -> None:
    x = torch.randn(256, 4) @ torch.randn(4, 12)
    for _ in range(steps):
        total = sum(vars(losses(model, x)).get(name) for name in ("task", "vq"))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()


def trained(form: str) -> tuple[Model, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = Model()
    if form == "frozen":
        model.encoder.requires_grad_(False)
    parts = [model.vq, model.decoder] if form == "left out" else [model]
    optimizer = torch.optim.Adam([p for part in parts for p in part.parameters() if p.requires_grad], lr=3e-3)
    train(model, optimizer)
    return model, optimizer


def bare(model: Model, optimizer: torch.optim.Optimizer, tmp_path: Path) -> vqdoctor.Report:
    path = tmp_path / "model.pt"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    return vqdoctor.examine(path)


@pytest.mark.parametrize("form", ["sound", "left out", "frozen"])
def test_trained_models(form: str, tmp_path: Path) -> None:
    model, optimizer = trained(form)
    in_file = [f.severity.label for f in bare(model, optimizer, tmp_path).findings if f.code == "VQ111"]
    live_report = vqdoctor.examine(model, torch.randn(64, 12), losses=losses)
    live = [f.severity.label for f in live_report.findings if f.code == "VQ111"]
    assert in_file == live == ([] if form == "sound" else ["warning"])


def test_a_pretrained_encoder_that_is_frozen_in_an_optimizer_of_all_parameters(tmp_path: Path) -> None:
    pretrained, _ = trained("sound")
    model = Model()
    model.encoder.load_state_dict(pretrained.encoder.state_dict())
    model.encoder.requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)  # torch passes over what is frozen
    train(model, optimizer)
    report = bare(model, optimizer, tmp_path)
    memory = report.find(OptimizerMemory, "vq")
    assert memory is not None and memory.before_gradient == 0
    assert not {"VQ101", "VQ111"} & {f.code for f in report.findings}


@pytest.mark.parametrize(
    ("make", "listed", "remembered"),
    [
        (lambda model: torch.optim.Adam(model.parameters()), 1.0, 1.0),
        (lambda model: torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9), 1.0, 1.0),
        (lambda model: torch.optim.SGD(model.parameters(), lr=1e-4), 1.0, None),
        (lambda model: torch.optim.Adam([*model.vq.parameters(), *model.decoder.parameters()]), 0.0, None),
    ],
    ids=["Adam", "momentum", "plain SGD", "left out"],
)
def test_what_the_optimizer_remembers_of_the_encoder(
    make: Callable[[Model], torch.optim.Optimizer],
    listed: float,
    remembered: float | None,
    tmp_path: Path,
) -> None:
    model = Model()
    optimizer = make(model)
    train(model, optimizer, steps=2)
    report = bare(model, optimizer, tmp_path)
    start, memory = report.find(EncoderStart), report.find(OptimizerMemory)
    assert start is not None and memory is not None
    assert (start.listed, memory.before_with_state) == (listed, remembered)
    # behind a trained decoder, such an encoder has hardly begun where the optimizer moves it
    expected = "cannot judge" if listed else "warning"
    assert says("VQ111", start.replace(before_drawn=1.0, after_drawn=0.0), memory) == expected
