"""VQ315 splits-on-different-scales: around its limit, and on a task that scales one split only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from judged import run_advice, says
from state_models import GradientVQ, Task, live, saved

from vqdoctor.core.evidence import Evidence, FirstInput

FIRST = FirstInput.healthy(rms=1.0)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([FIRST.replace(val_rms=3.01)], "error"),
        ([FIRST.replace(val_rms=2.99)], "passes"),
        ([FIRST.replace(val_rms=0.33)], "error"),
        ([FIRST.replace(val_rms=0.34)], "passes"),
        ([FIRST.replace(val_rms=None)], "cannot judge"),
        ([FIRST.replace(val_rms=0.0)], "cannot judge"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ315", *evidence) == expected


class Unscaled(Task):
    factor = 255.0

    def batches(self, split: str) -> Iterator[Any]:
        factor = self.factor if split == "val" else 1.0
        return ((factor * x, y) for x, y in super().batches(split))


class Scaled(Unscaled):
    factor = 1.0


@pytest.mark.parametrize("kind", [Unscaled, Scaled])
def test_a_task_that_scales_one_split_only(tmp_path: Path, kind: type[Task]) -> None:
    task = kind(GradientVQ)
    report = live(saved(tmp_path, task, 60), task)
    first = next(item for item in report.evidence if isinstance(item, FirstInput))
    assert first.val_rms is not None
    assert first.val_rms / first.rms == pytest.approx(255.0 if kind is Unscaled else 1.0, rel=0.1)
    assert (report.findings[0].code == "VQ315") == (kind is Unscaled)


def test_the_advice_scales_both_alike() -> None:
    torch.manual_seed(0)
    names = run_advice("VQ315", x_train=5 + 3 * torch.randn(500, 4), x_val=5 + 3 * torch.randn(500, 4))
    for name in ("x_train", "x_val"):
        values = names[name]
        assert isinstance(values, torch.Tensor)
        assert float(values.square().mean().sqrt()) == pytest.approx(1.0, abs=0.1)
