"""VQ405: hand-made evidence on both sides of its limit, and a model that has fewer vectors than codes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from judged import says
from state_models import EmaVQ, Task, found, live, saved

import vqdoctor
from vqdoctor.core.evidence import CodeExpiry

FEW = CodeExpiry.healthy(sample_size=64, epoch_vectors=63.0)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (FEW, "warning"),
        (FEW.replace(epoch_vectors=64.0), "warning"),
        (FEW.replace(epoch_vectors=65.0), "passes"),
        (FEW.replace(epoch_vectors=None), "cannot judge"),
    ],
)
def test_limits(evidence: CodeExpiry, expected: str) -> None:
    assert says("VQ405", evidence) == expected


class Small(Task):
    """The task with its first nine samples, of 54 vectors."""

    def __init__(self) -> None:
        super().__init__(EmaVQ)
        self.x, self.y = self.x[:9], self.y[:9]


@pytest.mark.usefixtures("one_thread")
def test_more_codes_than_vectors(tmp_path: Path) -> None:
    report = live(saved(tmp_path, Small(), 20), Small())
    assert "VQ405" in found(report, "VQ405")
    told = next(f for f in report.findings if f.code == "VQ405")
    assert "64 codes, and the training data 54 vectors" in told.message


@pytest.mark.usefixtures("one_thread")
def test_a_batch_is_not_the_training_data() -> None:
    task = Small()
    torch.manual_seed(0)
    model = task.model()
    report = vqdoctor.examine(model, (task.x, task.y), losses=task.losses)
    assert "VQ405" not in {f.code for f in report.findings}
