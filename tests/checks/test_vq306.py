"""VQ306: hand-made evidence just inside and outside its limits, and really trained models beside a twin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from judged import problems, run_advice, says
from state_models import CODES, DIM, OURS, EmaVQ, GradientVQ, Task, found, live, saved, trained
from torch import nn
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.core.evidence import EmaState, Evidence, Initialisation, TrainForward
from vqdoctor.core.levels import Confidence, Severity
from vqdoctor.engine import examine
from vqdoctor.models.task import Losses

START = Initialisation.healthy()
TRAIN = TrainForward.healthy()
FRESH = START.replace(counts_written=False, stepped=None, updates=None, structure=0.7)
SAVED_FIRST = FRESH.replace(stepped=False, updates=0, structure=460.0, counts_written=True)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([START.replace(identical_rows=256)], "error"),
        ([START.replace(identical_rows=255)], "passes"),
        ([START.replace(sample_size=1)], "passes"),
        ([START.replace(flag=True)], "passes"),
        ([START.replace(flag=False)], "error"),
        ([FRESH], "passes"),
        ([FRESH.replace(updates=0)], "error"),
        ([FRESH.replace(updates=0, stepped=True)], "passes"),
        ([FRESH.replace(stepped=False, structure=5.9)], "error"),
        ([FRESH.replace(stepped=False, structure=6.1)], "passes"),
        ([FRESH.replace(stepped=False, counts_written=True)], "passes"),
        ([FRESH.replace(stepped=False, frozen=True)], "passes"),
        # k-means placed the codes, and no step followed; without an EMA they may be another training's
        ([SAVED_FIRST, EmaState.healthy(updates=0, start_weight=1.0)], "error"),
        ([SAVED_FIRST], "passes"),
        ([FRESH.replace(stepped=None, updates=0, structure=460.0, counts_written=True)], "passes"),
        ([FRESH, TRAIN], "error"),
        ([FRESH, TRAIN.replace(writes_counts=False)], "passes"),
        ([FRESH.replace(counts_written=None), TRAIN.replace(writes_counts=None)], "passes"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ306", *evidence) == expected


@pytest.mark.parametrize(
    ("evidence", "remedy"),
    [
        (FRESH.replace(stepped=True), ("copy-buffers",)),
        (FRESH.replace(updates=420), ("copy-buffers",)),
        (FRESH, ()),
        (FRESH.replace(updates=0), ()),
    ],
)
def test_a_training_that_left_the_buffers_behind(evidence: Initialisation, remedy: tuple[str, ...]) -> None:
    (seen,) = problems("VQ306", evidence, TRAIN)
    assert seen.remedies == remedy
    assert ("such as an average" in seen.message) == bool(remedy)


class Load(nn.Module):
    """Two heads whose tables lie in one buffer, and their counts beside it, under names of no meaning."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.d = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)
        self.heads = Heads()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, loss = self.heads(self.e(x))
        return self.d(z_q), loss


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pots", torch.randn(2, CODES, DIM // 2))
        self.register_buffer("tally", torch.ones(2, CODES))

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        parts = z.detach().reshape(-1, 2, DIM // 2).transpose(0, 1)
        chosen = torch.cdist(parts, self.pots).argmin(-1)
        if self.training:
            votes = nn.functional.one_hot(chosen, CODES).float()
            tally = self.tally.lerp(votes.sum(1), 0.05)
            self.pots.mul_(0.95 * self.tally[..., None]).add_(0.05 * votes.mT @ parts).div_(tally[..., None])
            self.tally.copy_(tally)
        codes = torch.stack([table[c] for table, c in zip(self.pots, chosen, strict=True)], 1).view_as(z)
        return z + (codes - z).detach(), nn.functional.mse_loss(z, codes)


class Loads(Task):
    def __init__(self) -> None:
        super().__init__(None)

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return Load()

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        out, vq = model(batch[0])
        return Losses(task=nn.functional.mse_loss(out, batch[0]), vq=vq)


@pytest.mark.parametrize("buffers", [False, True])
def test_an_average_of_weights_with_and_without_its_buffers(tmp_path: Path, *, buffers: bool) -> None:
    task = Loads()
    state = trained(task, 120)
    average = task.model()
    for ours, name in zip(average.parameters(), dict(average.named_parameters()), strict=True):
        ours.data.copy_(state["model"][name])
    for name, ours in average.named_buffers() if buffers else ():
        ours.copy_(state["model"][name])
    torch.save({**state, "model": average.state_dict()}, tmp_path / "model.pt")
    assert found(live(tmp_path / "model.pt", task), "VQ306") == ({} if buffers else {"VQ306": Severity.ERROR})


def test_only_a_training_pass_that_writes_the_counts_is_known_for_sure() -> None:
    (seen,) = problems("VQ306", FRESH, TRAIN)
    assert seen.confidence is Confidence.HIGH
    (guess,) = problems("VQ306", FRESH.replace(stepped=False))
    assert guess.confidence is Confidence.MEDIUM


def test_data_init_that_never_came(tmp_path: Path) -> None:
    """vector-quantize-pytorch initialises in eval mode too: a live look alone would find a fresh codebook."""
    task = Task(lambda: VectorQuantize(dim=DIM, codebook_size=CODES, kmeans_init=True))
    for report in (examine(saved(tmp_path, task, 0)), live(tmp_path / "model.pt", task)):
        assert report.findings[0].code == "VQ306"
        assert "are zero" in report.findings[0].message
        assert report.verdict == "at-risk"
    causes = {f.code: f.explained_by for f in report.findings}
    assert causes["VQ307"] == "VQ306:vq"
    assert found(live(saved(tmp_path, task, 60), task), *OURS) == {}


@pytest.mark.parametrize("vq", [EmaVQ, GradientVQ, lambda: VectorQuantize(dim=DIM, codebook_size=CODES)])
def test_a_file_saved_at_step_0_is_called_untrained_and_no_collapse(tmp_path: Path, vq: Any) -> None:
    task = Task(vq)
    for report in (examine(saved(tmp_path, task, 0)), live(tmp_path / "model.pt", task)):
        assert report.findings[0].code == "VQ306"
        assert report.verdict == "at-risk"
        assert not found(report, "VQ501", "VQ502")


def test_without_its_optimizer_a_file_of_step_0_is_told_by_what_a_training_pass_writes(
    tmp_path: Path,
) -> None:
    task = Task(EmaVQ)
    path = tmp_path / "weights.pt"
    torch.save(task.model().state_dict(), path)
    bare = examine(path)
    assert bare.verdict == "inconclusive"
    assert all(f.severity is Severity.NOTE for f in bare.findings)
    whole = live(path, task)
    assert whole.findings[0].code == "VQ306" and "never written" in whole.findings[0].message
    assert whole.verdict == "at-risk"


def test_a_few_steps_are_not_none(tmp_path: Path) -> None:
    task = Task(EmaVQ)
    assert "VQ306" not in found(live(saved(tmp_path, task, 3), task), *OURS)


def test_weights_that_do_not_load_are_noticed() -> None:
    model = nn.Linear(2, 2)
    run_advice("VQ306", model=model, state=model.state_dict())
    with pytest.raises(AssertionError, match="bias"):
        run_advice("VQ306", model=model, state={"weight": model.weight})
