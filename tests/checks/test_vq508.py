"""VQ508 counts-hide-collapse just inside and just outside its limits."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from judged import run_advice, says, usage
from live_models import trained
from small_training import DIGITS, Digits
from torch import nn

from vqdoctor.core.evidence import CountsUsage, Evidence
from vqdoctor.core.settings import Settings
from vqdoctor.engine import examine

COUNTS = CountsUsage.healthy(perplexity=60.0, low=50.0, high=70.0)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        ([usage(256, 4_096, 24.9, 60), COUNTS], "warning"),
        ([usage(256, 4_096, 25.1, 60), COUNTS], "passes"),
        # 110 of 256 codes are no collapse that counts could hide
        ([usage(256, 4_096, 110.0, 188), COUNTS.replace(perplexity=240.0, low=235.0, high=245.0)], "note"),
        ([usage(256, 4_095, 24.9, 60), COUNTS], "cannot judge"),
        ([usage(256, 4_096, 24.9, 60, source="checkpoint"), COUNTS], "cannot judge"),
        ([usage(256, 4_096, 24.9, 60)], "cannot judge"),
        # the upper end of the data's interval counts
        ([usage(256, 4_096, 20.0, 60, perplexity_high=26.0), COUNTS], "passes"),
    ],
)
def test_limits(evidence: list[Evidence], expected: str) -> None:
    assert says("VQ508", *evidence) == expected


def test_the_advice_gives_the_perplexity_of_the_codes() -> None:
    found = run_advice("VQ508", indices=torch.arange(64).reshape(4, 16), num_codes=256)["perplexity"]
    assert isinstance(found, torch.Tensor) and found.item() == pytest.approx(64.0)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_an_encoder_that_burst_is_seen_before_the_counts_forget(tmp_path: Path) -> None:
    """Ten steps at 25 times the learning rate leave one code, and eight by the counts."""
    task = Digits(quantizer="ema", vq_weight=0.1, decay=0.98)
    data = tmp_path / "digits.npz"
    with np.load(DIGITS) as arrays:
        np.savez(data, **{name: arrays[name][:300] for name in ("x", "y", "split")})
    model = trained(task, 20)
    verdicts = {}
    for name, steps in (("sound", 0), ("burst", 10)):
        burst(model, task, steps)
        state = {"vqdoctor_task": "conv2d-vq/digits", "config": task.config, "model": model.state_dict()}
        torch.save({**state, "global_step": 160 + steps}, tmp_path / f"{name}.pt")
        report = examine(tmp_path / f"{name}.pt", data=data, settings=Settings(select=("VQ508",)))
        verdicts[name] = [(o.status, o.reason) for o in report.outcomes]
    assert verdicts == {"sound": [("passed", None)], "burst": [("found", None)]}


def burst(model: nn.Module, task: Digits, steps: int) -> None:
    adam = torch.optim.Adam(model.parameters(), lr=0.05)
    model.train()
    for batch in itertools.islice(itertools.cycle(task.batches("train")), steps):
        losses = task.losses(model, batch)
        adam.zero_grad()
        (losses.task + 0.1 * losses.vq).backward()
        adam.step()
    model.eval()
