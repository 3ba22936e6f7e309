"""VQ404 learning-rate-too-high: hand-made evidence just inside and outside its limits, and trained models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from judged import run_advice, says
from state_models import GradientVQ, Task, live, saved

from vqdoctor.core.evidence import Evidence, StepSize, TaskMetrics

STEP = StepSize.healthy()
LARGE = STEP.replace(learning_rate=0.05, highest_rate=0.05, step=0.31, highest_step=0.31)
COME_DOWN = STEP.replace(highest_rate=0.05, highest_step=0.31)
USELESS = TaskMetrics.healthy(loss=2.6, mean_code_loss=2.6)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([LARGE], "warning"),
        ([LARGE.replace(step=0.29)], "passes"),
        ([LARGE, TaskMetrics.healthy()], "warning"),
        # what it cost: codes that tell the task nothing, or weights that have run away
        ([LARGE, USELESS], "error"),
        ([STEP, USELESS], "passes"),
        ([LARGE.replace(growth=4.1)], "error"),
        ([LARGE.replace(growth=None)], "warning"),
        # a schedule has come down: a high base rate alone may be a factor that was never reached
        ([COME_DOWN], "passes"),
        ([COME_DOWN.replace(growth=3.9)], "passes"),
        ([COME_DOWN.replace(growth=4.1)], "error"),
        # the task's own optimizer, where the file has none: only beside a sign that it was used
        ([LARGE.replace(source="batch", growth=1.0)], "passes"),
        ([LARGE.replace(source="batch", growth=1.0), USELESS], "error"),
        ([LARGE.replace(source="batch", growth=4.1)], "error"),
        # z_e without a commitment term grows too
        ([STEP.replace(growth=6.8)], "passes"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ404", *evidence) == expected


class Steep(Task):
    def optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), lr=1.0)


def test_a_model_that_cannot_settle_beside_its_twin(tmp_path: Path) -> None:
    steep, twin = Steep(GradientVQ), Task(GradientVQ)
    report = live(saved(tmp_path, steep, 80), steep)
    assert report.findings[0].code == "VQ404", [f.code for f in report.findings]
    assert report.findings[0].severity.label == "error"
    # what follows from it hangs under it
    others = {f.code: f.explained_by for f in report.findings[1:] if f.severity.label != "note"}
    assert set(others.values()) <= {"VQ404:"}, others
    assert "VQ404" not in {f.code for f in live(saved(tmp_path, twin, 80), twin).findings}


@pytest.mark.parametrize("steep", [True, False])
def test_a_bare_state_dict_beside_the_tasks_own_optimizer(tmp_path: Path, steep: bool) -> None:
    task = Steep(GradientVQ) if steep else Task(GradientVQ)
    path = saved(tmp_path, task, 80)
    torch.save(torch.load(path, weights_only=True)["model"], path)
    report = live(path, task)
    size = report.find(StepSize)
    assert (size is not None and size.source == "batch") or not steep
    assert ("VQ404" in {f.code for f in report.findings}) == steep


def test_the_advice_builds_an_optimizer() -> None:
    optimizer = run_advice("VQ404", model=torch.nn.Linear(2, 2))["optimizer"]
    assert isinstance(optimizer, torch.optim.Adam) and optimizer.defaults["lr"] == 1e-3
