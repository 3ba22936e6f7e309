"""VQ406 learning-rate-vanished just inside and just outside its limits, and torch's schedules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from judged import says
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    StepLR,
)

from vqdoctor.core.evidence import Evidence, StepSize, TaskMetrics
from vqdoctor.engine.examine import examine

START = StepSize.healthy(learning_rate=1e-3, highest_rate=1e-3, step=0.011, highest_step=0.011)
GONE = START.replace(learning_rate=0.9e-25, step=1e-24)
LEFT = TaskMetrics.healthy(accuracy=None, chance_accuracy=None, loss=0.42, mean_code_loss=0.9)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([GONE], "warning"),
        ([GONE.replace(learning_rate=1.1e-25)], "passes"),
        # what it cost: the task is still to do, or it is done all the same
        ([GONE, LEFT], "error"),
        ([GONE, LEFT.replace(loss=0.26)], "note"),
        ([GONE, TaskMetrics.healthy(accuracy=0.31, chance_accuracy=0.1)], "error"),
        ([GONE, TaskMetrics.healthy(accuracy=0.93, chance_accuracy=0.1)], "note"),
        # a model that fails for another reason
        ([START, LEFT], "passes"),
        ([START.replace(learning_rate=0.0, step=0.0), LEFT], "passes"),
        # the weights moved for more than half of the training
        ([GONE.replace(highest_step=2e5), LEFT], "passes"),
        ([GONE.replace(highest_step=5.0), LEFT], "error"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ406", *evidence) == expected


UPDATES = 720


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("schedule", "found"),
    [
        (lambda o: StepLR(o, 5, 0.6), True),  # meant for epochs
        (lambda o: ExponentialLR(o, 0.9), True),
        (lambda o: ExponentialLR(o, 0.99), False),
        (lambda o: StepLR(o, UPDATES // 4, 0.1), False),
        (lambda o: CosineAnnealingLR(o, UPDATES), False),
        (lambda o: CosineAnnealingLR(o, UPDATES + 1), False),
        (lambda o: OneCycleLR(o, 1e-2, total_steps=UPDATES + 1), False),
        (lambda o: OneCycleLR(o, 1e-2, total_steps=UPDATES + 1, final_div_factor=1e20), False),
        (lambda o: LinearLR(o, 1.0, 0.0, total_iters=UPDATES), False),  # ends at the rounding beside 0
    ],
)
def test_a_schedule_that_torch_ran(
    tmp_path: Path, schedule: Callable[[Optimizer], LRScheduler], *, found: bool
) -> None:
    model = torch.nn.Linear(16, 16)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    plan = schedule(optimizer)
    for _ in range(UPDATES):
        optimizer.zero_grad()
        model(torch.ones(1, 16)).square().mean().backward()
        optimizer.step()
        plan.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "ckpt.pt")
    assert ("VQ406" in {f.code for f in examine(tmp_path / "ckpt.pt").findings}) is found
