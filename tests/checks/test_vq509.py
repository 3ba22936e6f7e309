"""VQ509: hand-made evidence just inside and outside its limits, and really trained models beside a twin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_bench.host import BenchTask, save
from fault_bench.setup import Setup
from judged import problems, says, usage
from live_models import trained
from small_training import DIGITS
from torch import nn
from torch.nn import functional
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.checks.vq509_dimensional_collapse import BARE, NARROW
from vqdoctor.core.evidence import Evidence, TaskMetrics, Usage
from vqdoctor.core.levels import Confidence
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine import examine
from vqdoctor.models.task import Losses

IN_USE = Usage.healthy()
LOSSES = TaskMetrics.healthy(accuracy=None, bypass_accuracy=None, chance_accuracy=None, mean_code_loss=1.0)
CODE_FIELDS = {"code_directions": 4, "code_rank": 2.4}


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([NARROW.replace(vector_directions=5), IN_USE], "note"),
        ([NARROW.replace(vector_directions=6), IN_USE], "passes"),
        # codes of a gradient have noise in the directions that z_e lacks
        ([NARROW.replace(code_directions=15), IN_USE], "note"),
        ([NARROW.replace(dim=9), IN_USE], "note"),
        ([NARROW.replace(dim=8), IN_USE], "passes"),
        ([NARROW.replace(input_directions=8), IN_USE], "note"),
        ([NARROW.replace(input_directions=7), IN_USE], "passes"),
        # a pure classifier of C classes asks for C - 1 directions
        ([NARROW, IN_USE, TaskMetrics.healthy(classes=5)], "passes"),
        ([NARROW, IN_USE, TaskMetrics.healthy(classes=6)], "note"),
        ([NARROW, IN_USE, TaskMetrics.healthy(classes=None)], "note"),
        # the task shows that the encoder is ruined: errors over those of one mean code, or losses
        ([NARROW, IN_USE, TaskMetrics.healthy(accuracy=0.72)], "warning"),
        ([NARROW, IN_USE, TaskMetrics.healthy(accuracy=0.74)], "note"),
        ([NARROW, IN_USE, LOSSES.replace(loss=0.31)], "warning"),
        ([NARROW, IN_USE, LOSSES.replace(loss=0.29)], "note"),
        ([NARROW.replace(vectors=6), IN_USE], "cannot judge"),
        ([NARROW.replace(vectors=7), IN_USE], "note"),
        ([BARE.replace(**CODE_FIELDS)], "note"),
        ([BARE.replace(code_directions=6)], "passes"),
        ([BARE.replace(**CODE_FIELDS, sample_size=6)], "cannot judge"),
        # a collapse of the codes says more
        ([NARROW, COLLAPSED_USAGE], "cannot judge"),
        ([NARROW, usage(256, 28_752, 100.0, 60)], "cannot judge"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ509", *evidence) == expected


def test_what_is_not_known_lowers_the_confidence() -> None:
    (traced,), (untraced,), (bare,) = (
        problems("VQ509", evidence)
        for evidence in (NARROW, NARROW.replace(input_directions=None), BARE.replace(**CODE_FIELDS))
    )
    assert [p.confidence for p in (traced, untraced, bare)] == [
        Confidence.MEDIUM,
        Confidence.LOW,
        Confidence.LOW,
    ]
    assert (traced.decide_with, bare.decide_with) == ("", "--data batch.npz")
    assert {m.name for m in traced.measurements} - {m.name for m in bare.measurements} == {
        "vector_rank",
        "vector_directions_99",
        "input_directions",
    }


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ("sphere-codes.pt", "found"),  # codes on the sphere: 256 in use, in 3 of 64 directions
        ("healthy-256.pt", "passed"),
        ("healthy-512.pt", "passed"),
        ("dead-codes.pt", "skipped"),
        ("no-ste.pt", "skipped"),
    ],
)
def test_the_samples(sample: str, expected: str) -> None:
    assert _status(DIGITS.parent / sample) == expected


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("implementation", "directions", "expected"),
    [
        ("VectorQuantize", 4, ("found", "found")),
        ("VectorQuantize", 0, ("passed", "passed")),
        ("rosinality", 4, ("found", "found")),
        ("taming", 4, ("skipped", "found")),  # a file without counts
    ],
)
def test_an_encoder_through_four_directions(
    tmp_path: Path, implementation: str, directions: int, expected: tuple[str, str]
) -> None:
    """Bare, and with the user's task; 0 lets all directions through."""
    setup = Setup(implementation=implementation, dim=32, steps=100, directions=directions)
    path = save(setup, tmp_path / "model.pt")
    assert (_status(path), _status(path, user_model=UserModel(task=BenchTask(setup)))) == expected


class Points:
    """Sequences of 16 points, of as many directions as there are sensors; each point is coded by itself."""

    vq_weight = 0.25

    def __init__(self, sensors: int) -> None:
        self.x = torch.randn(64, 16, sensors, generator=torch.Generator().manual_seed(0))

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return Coded(self.x.shape[-1])

    def batches(self, split: str) -> Iterator[torch.Tensor]:
        return iter(self.x.split(16))

    def losses(self, model: nn.Module, batch: torch.Tensor) -> Losses:
        made, vq = model(batch)
        return Losses(task=functional.mse_loss(made, batch), vq=vq)


class Coded(nn.Module):
    """Three directions of 32 for every point, whatever there is to see."""

    def __init__(self, sensors: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(sensors, 3), nn.Linear(3, 32))
        self.vq = VectorQuantize(dim=32, codebook_size=64, kmeans_init=True, decay=0.9)
        self.decoder = nn.Linear(32, sensors)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, _, loss = self.vq(self.encoder(x))
        return self.decoder(z_q), loss.sum()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("sensors", "expected"), [(3, "passed"), (24, "found")])
def test_data_of_three_directions_leaves_no_more_to_z_e(tmp_path: Path, sensors: int, expected: str) -> None:
    """Each vector sees one point alone, while a sample of 16 points has up to 48 directions."""
    task = Points(sensors)
    torch.save({"model": trained(task).state_dict()}, tmp_path / "points.pt")
    assert _status(tmp_path / "points.pt", user_model=UserModel(task=task)) == expected


def _status(path: Path, **how: Any) -> str:
    report = examine(path, settings=Settings(select=("VQ509",)), **how)
    (outcome,) = report.outcomes
    return outcome.status
