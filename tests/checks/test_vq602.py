"""VQ602 decoder-ignores-codes just inside and just outside its limits."""

from __future__ import annotations

import pytest
import torch
from judged import problems, says
from torch import nn
from torch.nn import functional

import vqdoctor
from vqdoctor.core.evidence import CodeDependence, Evidence, TaskGradient, TaskMetrics

METRICS = TaskMetrics.healthy()
HELPED = METRICS.replace(mean_code_accuracy=0.7)
UNREAD = METRICS.replace(
    mean_code_accuracy=METRICS.accuracy, loss=0.2, bypass_loss=0.2, shuffled_loss=0.2, mean_code_loss=0.2
)
AROUND = TaskGradient.healthy(at_output=None, ratio=None)
BYPASS = CodeDependence.healthy(swapped=0.09, around=1.0)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([METRICS.replace(mean_code_accuracy=0.91)], "error"),
        ([METRICS.replace(mean_code_accuracy=0.90)], "passes"),
        ([METRICS.replace(accuracy=0.08, mean_code_accuracy=0.08)], "cannot judge"),
        ([METRICS.replace(accuracy=None, loss=0.1, mean_code_loss=0.102)], "passes"),
        ([METRICS.replace(accuracy=None, loss=-4.0, mean_code_loss=-4.0)], "cannot judge"),
        # z_e, shuffled codes and the mean code leave the loss exactly as it is, and the encoder learns
        ([UNREAD, AROUND], "error"),
        ([UNREAD], "error"),
        ([UNREAD.replace(accuracy=None, loss=0.19), AROUND], "passes"),
        # a way around the codes that carries most of what tells samples apart
        ([HELPED, BYPASS], "warning"),
        ([HELPED, BYPASS.replace(swapped=0.11)], "passes"),
        ([HELPED, BYPASS.replace(around=0.0)], "passes"),
        # … and a way around that carries a context, beside codes that do most of the task
        ([HELPED.replace(mean_code_accuracy=0.5), BYPASS], "passes"),
        ([HELPED.replace(accuracy=None, loss=0.1, mean_code_loss=0.19), BYPASS], "warning"),
        ([HELPED.replace(accuracy=None, loss=0.1, mean_code_loss=0.21), BYPASS], "passes"),
        ([METRICS.replace(mean_code_accuracy=0.91), BYPASS], "error"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ602", *evidence) == expected


def test_only_codes_that_nothing_reads_come_before_a_collapse() -> None:
    assert "VQ501" in problems("VQ602", UNREAD, AROUND)[0].explains
    assert not problems("VQ602", UNREAD)[0].explains
    assert not problems("VQ602", UNREAD, AROUND.replace(at_output=0.2, ratio=1.0))[0].explains
    past_z_q = AROUND.replace(at_output=0.2, ratio=1.0, around=True)
    assert "VQ313" in problems("VQ602", UNREAD, past_z_q)[0].explains
    assert not problems("VQ602", UNREAD, AROUND.replace(joined=False))[0].explains
    assert not problems("VQ602", UNREAD.replace(bypass_loss=0.201), AROUND)[0].explains
    dead = AROUND.replace(at_output=0.0, at_input=0.0, before=0.0, around=True)
    assert not problems("VQ602", UNREAD, dead)[0].explains  # a decoder that gives the same for anything


@pytest.mark.parametrize(
    ("bypass", "way", "expected"),
    [
        (0.109, BYPASS, True),
        (0.111, BYPASS, False),
        (0.091, BYPASS, True),
        (0.089, BYPASS, False),
        (None, BYPASS, False),
        (0.1, BYPASS.replace(around=0.0), False),
        (0.1, BYPASS.replace(swapped=0.11), False),
    ],
)
def test_a_way_around_that_does_the_task_comes_before_a_collapse(
    bypass: float | None, way: CodeDependence, expected: bool
) -> None:
    metrics = METRICS.replace(accuracy=None, loss=0.1, mean_code_loss=0.1, bypass_loss=bypass)
    (problem,) = problems("VQ602", metrics, way)
    assert ("VQ301" in problem.explains) is ("VQ201" in problem.explains) is expected
    assert ("VQ507" in problem.explains) is expected
    assert ("way around" in problem.message) is expected


def test_of_a_classifier_the_accuracy_with_z_e_counts() -> None:
    unused = METRICS.replace(mean_code_accuracy=METRICS.accuracy)
    assert problems("VQ602", unused.replace(bypass_accuracy=0.9), BYPASS)[0].explains  # of 0.95
    assert not problems("VQ602", unused.replace(bypass_accuracy=0.8), BYPASS)[0].explains


class Codebook(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 4)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes = self.embedding(torch.cdist(z.detach(), self.embedding.weight.detach()).argmin(-1))
        loss = functional.mse_loss(codes, z.detach()) + 0.25 * functional.mse_loss(z, codes.detach())
        return z + (codes - z).detach(), loss


class Sequences(nn.Module):
    """An autoencoder of sequences.

    Args:
        form: "sound"; "skip", where the decoder also gets the output of the layer before z_e; "condition",
            where it also gets a number that is computed from the input; or "z_e", where it gets z_e itself.
    """

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.first, self.second, self.vq = nn.Linear(6, 32), nn.Linear(32, 4), Codebook()
        self.decoder = nn.Sequential(nn.Linear(36 if form == "skip" else 5, 32), nn.Tanh(), nn.Linear(32, 6))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = torch.tanh(self.first(x))
        z_q, loss = self.vq(z_e := self.second(hidden))
        z_q = z_e if self.form == "z_e" else z_q
        more = hidden if self.form == "skip" else x.mean(-1, keepdim=True) * (self.form == "condition")
        return self.decoder(torch.cat([z_q, more], -1)), loss


def losses(model: nn.Module, x: torch.Tensor) -> vqdoctor.Losses:
    out, vq = model(x)
    return vqdoctor.Losses(task=functional.mse_loss(out, x), vq=vq)


def test_a_decoder_that_gets_z_e_is_the_first_cause() -> None:
    torch.manual_seed(0)
    model, x = Sequences("z_e"), torch.randn(128, 8, 6)
    with torch.no_grad():
        model.vq.embedding.weight.copy_(model.second(torch.tanh(model.first(x)))[:16, 0])
    report = vqdoctor.examine(model, x, losses=losses)
    assert report.findings[0].code == "VQ602" and "the decoder gets z_e" in report.findings[0].message


def test_a_classifier_that_embeds_the_indices_uses_its_codes() -> None:
    """Its accuracy is that of any z_q; the reconstruction beside it is not. Without one, nothing tells."""
    same = {"accuracy": 0.27, "bypass_accuracy": 0.27, "shuffled_accuracy": 0.27, "mean_code_accuracy": 0.27}
    both = TaskMetrics.healthy(chance_accuracy=0.15, loss=1.9, mean_code_loss=2.3, **same)
    assert says("VQ602", both) == "cannot judge"
    assert says("VQ602", both.replace(mean_code_loss=1.9)) == "error"
    assert says("VQ602", both.replace(shuffled_accuracy=0.268)) == "error"


@pytest.mark.parametrize("form", ["sound", "skip", "condition"])
def test_trained_models(form: str) -> None:
    torch.manual_seed(0)
    model = Sequences(form)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    x = torch.randn(128, 8, 3) @ torch.randn(3, 6)
    with torch.no_grad():
        model.vq.embedding.weight.copy_(model.second(torch.tanh(model.first(x)))[:16, 0])
    for _ in range(200):
        of = losses(model, x)
        assert isinstance(of.vq, torch.Tensor)
        optimizer.zero_grad()
        (of.task + of.vq).backward()
        optimizer.step()
    report = vqdoctor.examine(model, x, losses=losses)
    (dependence,) = (e for e in report.evidence if isinstance(e, CodeDependence))

    assert bool(dependence.around) == (form == "skip")
    assert [f.severity.label for f in report.findings if f.code == "VQ602"] == ["warning"] * (form == "skip")


class Predictor(nn.Module):
    """Predicts the second half of an input from the first half and from codes of both."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.vq = nn.Linear(6, 32), nn.Linear(64, 4), Codebook()
        self.decoder = nn.Linear(36, 6)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        past, now = (self.first(part) for part in x.chunk(2, -1))
        z_q, loss = self.vq(self.second(torch.cat([past, now], -1)))
        return self.decoder(torch.cat([z_q, past], -1)), loss


def test_a_context_around_codes_that_carry_what_moves_is_meant() -> None:
    torch.manual_seed(0)
    model, moves = Predictor(), 0.3 * torch.randn(4, 6)
    past = torch.randn(128, 8, 3) @ torch.randn(3, 6)
    x = torch.cat([past, past + moves[torch.randint(4, (128, 8))]], -1)

    def predicted(model: nn.Module, x: torch.Tensor) -> vqdoctor.Losses:
        out, vq = model(x)
        return vqdoctor.Losses(task=functional.mse_loss(out, x[..., 6:]), vq=vq)

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        of = predicted(model, x)
        assert isinstance(of.vq, torch.Tensor)
        optimizer.zero_grad()
        (of.task + of.vq).backward()
        optimizer.step()
    report = vqdoctor.examine(model, x, losses=predicted)
    (dependence,) = (e for e in report.evidence if isinstance(e, CodeDependence))
    assert dependence.around > 0 and dependence.swapped < 0.1
    assert "VQ602" not in {f.code for f in report.findings}
