"""VQ507: hand-made evidence just inside and outside its limits, and really trained models beside a twin."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from judged import says
from torch import nn
from use_models import DIM, POSITIONS, Layer, Model, Task, build_and_examine, examined, found, trained
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.core.evidence import EncoderSpread, Evidence
from vqdoctor.core.levels import Severity

SPREAD = EncoderSpread.healthy()

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # a tone is heard by an encoder that is alive, and silence by none
        ([SPREAD.replace(output_spread=0.4, input_rank=2.0), COLLAPSED_USAGE], "note"),
        ([SPREAD.replace(output_spread=0.0, input_rank=2.0), COLLAPSED_USAGE], "error"),
        ([SPREAD.replace(output_spread=0.0, input_spread=0.0), COLLAPSED_USAGE], "note"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ507", *evidence) == expected


class DeadEnd(nn.Module):
    """An encoder that ends in a ReLU whose inputs are all negative."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.linear = nn.Linear(DIM, DIM)
        nn.init.constant_(self.linear.bias, bias)
        self.offset = nn.Parameter(torch.ones(DIM))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(x)) + self.offset


@pytest.mark.parametrize(("bias", "expected"), [(-60.0, {"VQ507": Severity.ERROR}), (0.0, {})])
def test_a_dead_encoder(tmp_path: Path, bias: float, expected: dict[str, Severity]) -> None:
    report = build_and_examine(tmp_path, lambda: Model(Layer(64), DeadEnd(bias)))
    assert found(report, "VQ507") == expected
    if expected:
        collapse = next(f for f in report.findings if f.code == "VQ501")
        assert collapse.explained_by == "VQ507:vq"


def tone(noise: float) -> torch.Tensor:
    time = torch.arange(POSITIONS * DIM) / 16
    phase = torch.rand(480, 1, generator=torch.Generator().manual_seed(5))
    wave = torch.sin(2 * math.pi * (time + phase))
    hiss = torch.randn(wave.shape, generator=torch.Generator().manual_seed(6))
    return (wave + noise * hiss).view(480, POSITIONS, DIM)


@pytest.mark.parametrize("x", [torch.zeros(480, POSITIONS, DIM), tone(0.0), tone(0.03)])
def test_silence_and_a_tone_are_the_datas_fault(tmp_path: Path, x: torch.Tensor) -> None:
    """The model is one that uses its codes on the data that it was trained on."""
    task = Task(lambda: Model(VectorQuantize(DIM, 64, decay=0.95, kmeans_init=True)))
    model = trained(task)
    assert found(examined(tmp_path, task, model), "VQ501", "VQ507") == {}
    task.x = x
    report = examined(tmp_path, task, model)
    assert found(report, "VQ507") == {"VQ507": Severity.NOTE}
    assert "VQ501" in found(report, "VQ501")
