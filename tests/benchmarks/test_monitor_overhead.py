"""What the monitor costs at its defaults: CPU time of the same training with and without it, in turns."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vqdoctor.engine.monitor import Monitor
from vqdoctor.reference.recipes import HEALTHY
from vqdoctor.reference.task import ReferenceTask
from vqdoctor.reference.train import _Run
from vqdoctor.training.schedule import warm_up

pytestmark = pytest.mark.bench

DIGITS = Path(__file__).parents[2] / "sample_checkpoints" / "digits.npz"
MOST = 0.01


class Training:
    """The healthy recipe, step by step."""

    def __init__(self, folder: Path, *, monitored: bool, large: bool) -> None:
        with np.load(DIGITS) as data:
            self.task = ReferenceTask(data["x"], data["y"], data["split"], HEALTHY.config(0))
        torch.manual_seed(0)
        self.model = self.task.model().train()
        if large:
            width = 4400
            self.model.beside = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width))
        self.adam = torch.optim.Adam(self.model.parameters(), lr=HEALTHY.learning_rate)
        self.run = _Run(HEALTHY, self.task, self.model, self.adam, torch.Generator().manual_seed(0))
        assert self.model.vq is not None
        self.run.place_codes(self.model.vq)
        self.monitor = None
        if monitored:
            out = folder / f"{large}.vqtrace.jsonl"
            self.monitor = Monitor(self.model, out=out, on_collapse=lambda event: None)
        if self.monitor is not None:
            self.monitor.begin()
        self.large, self.epoch, self.seconds = large, 0, 0.0
        self.left = iter(())

    def steps(self, number: int) -> None:
        """Train some steps, and add up their CPU time."""
        for _ in range(number):
            batch = next(self.left, None)
            if batch is None:
                self.run.revive(self.model.vq) if self.epoch else None
                self.model.train()
                self.epoch += 1
                self.left = self.task.shuffled(self.epoch)
                batch = next(self.left)
            start = time.process_time()
            losses = self.task.losses(self.model, batch)
            assert losses.vq is not None
            weight = HEALTHY.vq_weight * warm_up(self.epoch - 1, HEALTHY.warm_up_epochs)
            loss = losses.task + weight * losses.vq
            if self.large:
                loss = loss + 1e-3 * self.model.beside(batch[0].flatten(1)).square().mean()
            self.adam.zero_grad()
            loss.backward()
            self.adam.step()
            if self.monitor is not None:
                self.monitor.step(task_loss=losses.task, vq_loss=losses.vq)
            self.seconds += time.process_time() - start


@pytest.mark.parametrize(("large", "steps"), [(False, 2000), (True, 200)])
def test_it_costs_a_hundredth(
    large: bool, steps: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    plain, watched = (Training(tmp_path, monitored=m, large=large) for m in (False, True))
    for _ in range(steps // 20):
        for training in (plain, watched):
            training.steps(20)
    same = zip(plain.model.state_dict().values(), watched.model.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in same)
    overhead = watched.seconds / plain.seconds - 1
    size = sum(p.numel() for p in watched.model.parameters()) / 1e6
    told = [event.code for event in watched.monitor.events] if watched.monitor else []
    with capsys.disabled():
        print(
            f"\n{size:.1f} M parameters, {steps} steps: {plain.seconds:.2f} s without, "
            f"{watched.seconds:.2f} s with the monitor: {overhead:+.2%}; told {told}"
        )
    assert overhead <= MOST
