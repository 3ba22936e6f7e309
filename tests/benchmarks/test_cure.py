"""Time to cure, against training from scratch with the fault corrected, plainly and with the library's means.

A classifier of digits around vector-quantize-pytorch's VectorQuantize without its straight-through path
(K = 256, started at random, nothing revived). In one run, on the same data, batches, optimizer and budget:
`fix --retrain`'s training of the sick checkpoint; a training from scratch with only the fault corrected; and
one with the library's own `kmeans_init=True, threshold_ema_dead_code=2` as well. Time is CPU seconds on one
thread until the goals (perplexity K/5, 40 % of the codes, an accuracy, ECE) first hold on the stop split.
`make bench` prints the ratios.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from fault_bench.host import BenchTask, Host, save
from fault_bench.setup import Setup
from torch import nn

from vqdoctor.core.retraining import Figures, Goals
from vqdoctor.engine import Settings, UserModel
from vqdoctor.engine.examine import examine_session
from vqdoctor.engine.retrain import plan_for, trainable
from vqdoctor.engine.session import Session
from vqdoctor.training.evaluate import evaluate

pytestmark = pytest.mark.bench

EPOCHS, SEEDS = 30, (0, 1, 2)
GOALS = Goals(min_accuracy=0.93)
SICK = Setup(
    implementation="VectorQuantize",
    data="digit-classes",
    codes=256,
    straight_through=False,
    data_init=False,
    revival=False,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What one way came to: CPU seconds to the goals, None if never, and in all; figures of the val split."""

    to_goals: float | None
    whole: float
    val: Figures

    @property
    def perplexity(self) -> float:
        return self.val.layers["vq"].perplexity

    @property
    def accuracy(self) -> float:
        return self.val.accuracy or 0.0

    @property
    def seconds(self) -> float:
        return self.whole if self.to_goals is None else self.to_goals

    def told(self) -> str:
        when = "never" if self.to_goals is None else f"{self.to_goals:.1f} s"
        figures = f"perplexity {self.perplexity:.0f}, accuracy {self.accuracy:.3f}"
        return f"goals {when} of {self.whole:.1f} s, {figures}"


class Clock:
    def __init__(self) -> None:
        self.start, self.reached = time.process_time(), None

    def epoch(self, stop: Figures | None) -> None:
        if self.reached is None and stop is not None and GOALS.met(stop):
            self.reached = time.process_time() - self.start

    def reading(self, val: Figures | None) -> TrainingPlan:
        assert val is not None
        return TrainingPlan(to_goals=self.reached, whole=time.process_time() - self.start, val=val)


def ours(setup: Setup, folder: Path) -> TrainingPlan:
    path, settings = save(setup, folder / f"sick-{setup.seed}.pt"), Settings(seed=setup.seed)
    with Session.open(path, user_model=UserModel(task=BenchTask(setup)), settings=settings) as session:
        here = trainable(session)
        report = examine_session(session).report
        plan = plan_for(report, here, replace(settings, epochs=EPOCHS)).training
        clock = Clock()
        trainer = here.trainer(plan)
        trainer.run(lambda row: clock.epoch(row.stop))
        return clock.reading(trainer.figures())


def from_scratch(setup: Setup, folder: Path, vq: dict[str, object]) -> TrainingPlan:
    """Train as the user's script would, on the batches and with the stop split that ours has."""
    healthy = replace(setup, straight_through=True, steps=0)
    path, settings = save(healthy, folder / f"fresh-{setup.seed}.pt"), Settings(seed=setup.seed)
    task = BenchTask(healthy)
    with Session.open(path, user_model=UserModel(task=task), settings=settings) as session:
        here = trainable(session)
    splits = here.splits
    clock = Clock()
    torch.manual_seed(setup.seed)
    model = task.model()
    assert isinstance(model, Host)
    if vq:
        model.vq = _vector_quantize(setup, vq)
    optimizer, layers = task.optimizer(model), here.layers(model)
    for epoch in range(EPOCHS):
        model.train()
        for batch in splits.train(epoch):
            losses = task.losses(model, batch)
            assert losses.vq is not None
            optimizer.zero_grad()
            (losses.task + setup.vq_weight * losses.vq).backward()
            optimizer.step()
        clock.epoch(evaluate(model, task, splits.stop(), layers))
    return clock.reading(evaluate(model, task, splits.val(), layers))


def _vector_quantize(setup: Setup, more: dict[str, object]) -> nn.Module:
    from vector_quantize_pytorch import VectorQuantize

    return VectorQuantize(dim=setup.dim, codebook_size=setup.codes, decay=setup.decay, **more)


def test_no_slower_than_from_scratch_and_with_more_perplexity(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peers = {
        "the fault corrected": {},
        "kmeans_init, threshold 2": {"kmeans_init": True, "threshold_ema_dead_code": 2},
    }
    found: dict[str, list[TrainingPlan]] = {name: [] for name in ("fix --retrain", *peers)}
    for seed in SEEDS:
        setup = replace(SICK, seed=seed)
        found["fix --retrain"].append(ours(setup, tmp_path))
        for name, vq in peers.items():
            found[name].append(from_scratch(setup, tmp_path, vq))
    with capsys.disabled():
        print()
        for name, readings in found.items():
            for seed, reading in zip(SEEDS, readings, strict=True):
                print(f"{name:<26} seed {seed}: {reading.told()}")
    mine = found["fix --retrain"]
    for name in peers:
        ratio = statistics.median(a.seconds / b.seconds for a, b in zip(mine, found[name], strict=True))
        more = statistics.median(a.perplexity / b.perplexity for a, b in zip(mine, found[name], strict=True))
        better = statistics.mean(a.accuracy - b.accuracy for a, b in zip(mine, found[name], strict=True))
        with capsys.disabled():
            print(
                f"against {name}: {ratio:.2f} of its time to the goals, {more:.2f} times its perplexity, "
                f"accuracy {better:+.3f}"
            )
        assert ratio <= 1.0
        assert more > 1.0
