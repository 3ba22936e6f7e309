"""The monitor beside a training: it changes nothing, it names causes, and its trace has what it saw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import Digits, train
from torch import nn
from vector_quantize_pytorch import FSQ, ResidualVQ, VectorQuantize

import vqdoctor
from vqdoctor.core.errors import UserError
from vqdoctor.core.trace import Event
from vqdoctor.engine.monitor import CollapseWarning, Monitor
from vqdoctor.engine.watchers import Watchers
from vqdoctor.saved.trace import read_trace


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in model.state_dict().values()]


def test_the_weights_are_bit_equal_also_across_a_stop_and_a_start(tmp_path: Path) -> None:
    plain = [*train(200, Digits(images=120, batch_size=12))][-1]
    run = train(200, Digits(images=120, batch_size=12))
    model = next(run)
    monitor = Monitor(model, every=40, out=tmp_path / "t.jsonl", on_collapse=lambda event: None)
    for number, _ in enumerate(run, start=1):
        if number == 1:
            monitor.begin()
        monitor.step() if number in range(2, 90) or number > 120 else None
        if number == 90:
            monitor.end()
        if number == 120:
            monitor.begin()
            monitor.steps = 120
    monitor.end()
    same = zip(weights(plain), weights(model), strict=True)
    assert all(torch.equal(one, other) for one, other in same)
    trace = read_trace(tmp_path / "t.jsonl")
    assert [row.step for row in trace.of("vq")] == [40, 80, 160, 200]
    row = trace.of("vq")[-1]
    assert row.perplexity and row.counts_perplexity and row.z_e_move and row.code_move is not None
    assert row.gradient == pytest.approx(1, abs=0.5)  # straight through, and a little commitment


def test_a_step_between_looks_is_not_looked_at() -> None:
    run = train(12, Digits())
    model = next(run)
    with Monitor(model, every=100, out=None) as monitor:
        for number, _ in enumerate(run, start=1):
            loss: Any = object()  # reading it would fail
            monitor.step(task_loss=loss)
            if number > 1:
                assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_missing_estimator_is_told_in_the_first_step(tmp_path: Path) -> None:
    run = train(3, Digits(straight_through=False))
    file = tmp_path / "t.jsonl"
    with Monitor(next(run), out=file) as monitor, pytest.warns(CollapseWarning, match="step 1: VQ101 in vq"):
        for _ in run:
            monitor.step()
    assert [event.code for event in read_trace(file).events] == ["VQ101"]


def test_a_resumed_training_is_not_told_what_its_trace_tells(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    told: list[Event] = []
    for start in (0, 3):
        run = train(3, Digits(straight_through=False))
        with Monitor(next(run), out=file, start=start, on_collapse=told.append) as monitor:
            for _ in run:
                monitor.step()
    assert [event.step for event in told] == [1]
    assert [event.step for event in read_trace(file).events] == [1] and read_trace(file).ended


def test_it_stops_the_training_at_an_error() -> None:
    run = train(3, Digits(straight_through=False))
    with (
        pytest.warns(CollapseWarning, match="VQ101"),
        Monitor(next(run), out=None, on_collapse="stop") as monitor,
    ):
        for _ in run:
            monitor.step()
    assert monitor.steps == 1


def test_with_the_task_it_names_a_cause_that_the_losses_show() -> None:
    task = Digits(vq_weight=100.0)
    run = train(75, task)
    events: list[Event] = []
    with Monitor(next(run), task, every=25, out=None, on_collapse=events.append) as monitor:
        for _ in run:
            monitor.step()
    assert [(event.code, event.since) for event in events] == [("VQ201", 25)]
    assert monitor.report is not None and monitor.report.verdict == "collapsed"


@pytest.mark.parametrize(("quantizer", "told"), [("sphere", ["VQ310"]), ("sphere-sound", [])])
def test_a_fault_of_the_code_is_told_before_the_usage_shows_it(quantizer: str, told: list[str]) -> None:
    run = train(40, Digits(quantizer=quantizer, decay=0.9))
    events: list[Event] = []
    with Monitor(next(run), every=10, out=None, on_collapse=events.append) as monitor:
        for _ in run:
            monitor.step()
    assert [event.code for event in events] == told  # long before poor usage would be a finding


def test_an_ema_that_stalls_is_told_without_an_optimizer() -> None:
    run = train(100, Digits(num_codes=256, dim=64, decay=0.9999))
    events: list[Event] = []
    with Monitor(next(run), every=50, out=None, start=100, on_collapse=events.append) as monitor:
        for _ in run:
            monitor.step()
    assert [(event.code, event.step, event.since) for event in events] == [("VQ302", 200, 150)]


class Failing(Digits):
    """A task whose losses fail on any model but the training's own."""

    own: nn.Module | None = None

    def losses(self, model: nn.Module, batch: Any) -> Any:
        if self.own is not None and model is not self.own:
            raise MemoryError("no room for a copy")
        return super().losses(model, batch)


def test_a_failing_examination_does_not_stop_the_training() -> None:
    task = Failing(vq_weight=100.0)
    run = train(40, task)
    task.own = next(run)
    with (
        pytest.warns(CollapseWarning, match="could not examine the model: UserError.*no room"),
        Monitor(task.own, task, every=10, out=None, start=200) as monitor,
        pytest.warns(CollapseWarning, match="VQ50[12]"),
    ):
        for _ in run:
            monitor.step()
    assert [event.code for event in monitor.events] == ["VQ501", "VQ502"] and monitor.steps == 240


def test_revival_moves_dead_codes(tmp_path: Path) -> None:
    active = {}
    for revive in (False, True):
        run = train(60, Digits(images=100))
        model, file = next(run), tmp_path / f"{revive}.jsonl"
        adam = torch.optim.Adam(model.parameters())
        with Monitor(
            model, every=10, out=file, on_collapse=lambda e: None, revive=revive, optimizer=adam
        ) as monitor:
            for _ in run:
                monitor.step()
        active[revive] = read_trace(file).of("vq")[-1].active
    assert active[True] > active[False] + 8


def test_revival_needs_the_optimizer() -> None:
    with pytest.raises(UserError, match="optimizer"):
        Monitor(nn.Linear(2, 2), revive=True)


def test_codes_are_not_revived_where_one_of_several_processes_watches() -> None:
    """It alone would move them, and DistributedDataParallel sends no parameter to the others."""
    vq = VectorQuantize(dim=2, codebook_size=8, learnable_codebook=True, ema_update=False)
    model = nn.Sequential(nn.Linear(2, 2), vq)
    monitor = Monitor(model, out=None, revive=True, optimizer=torch.optim.SGD(model.parameters(), 0.1))
    monitor.begin()
    monitor._watchers = Watchers(world=2)
    model(torch.randn(4, 16, 2))
    with pytest.raises(UserError, match="would move the codes of rank zero alone"):
        monitor.step()


@pytest.mark.parametrize("wrong", [{"every": 0}, {"on_collapse": "shout"}, {"model": 3}])
def test_a_wrong_argument_is_one_clear_line(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Monitor(**{"model": nn.Linear(2, 2), **wrong})


def test_a_model_without_a_layer_is_said_in_the_first_step() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(UserError, match="no VQ layer"), vqdoctor.Monitor(model, out=None) as monitor:
        model(torch.randn(4, 2))
        monitor.step()


def test_a_model_that_the_loop_does_not_call_is_said() -> None:
    with pytest.raises(UserError, match="did not call"), vqdoctor.Monitor(nn.Linear(2, 2)) as monitor:
        monitor.step()


class Parts(nn.Module):
    """A user's module whose own forward is never called: the loop calls its parts."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.net = inner


def test_a_rank_beside_one_that_does_not_watch_writes_and_report_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    run = train(3, Digits(straight_through=False))
    with Monitor(next(run), out=tmp_path / "t.jsonl") as monitor:
        for _ in run:
            monitor.step()
    assert monitor.events == [] and not (tmp_path / "t.jsonl").exists()


def test_a_part_that_the_loop_calls_is_enough() -> None:
    run = train(3, Digits(straight_through=False))
    events: list[Event] = []
    with Monitor(Parts(next(run)), out=None, on_collapse=events.append) as monitor:
        for _ in run:
            monitor.step()
    assert [(event.code, event.layer) for event in events] == [("VQ101", "vq")]


class Around(nn.Module):
    """Linear encoder and decoder around any quantizer of [B, N, 8]."""

    def __init__(self, vq: nn.Module) -> None:
        super().__init__()
        self.encoder, self.vq, self.decoder = nn.Linear(3, 8), vq, nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> Any:
        z_q, _indices, *loss = self.vq(self.encoder(x))
        return self.decoder(z_q), loss[0].sum() if loss else torch.zeros(())


@pytest.mark.parametrize(
    ("quantizer", "layers"),
    [
        (lambda: ResidualVQ(dim=8, num_quantizers=2, codebook_size=32, kmeans_init=True), 2),
        (lambda: FSQ(levels=[4, 4, 4], dim=8), 1),
        (lambda: VectorQuantize(dim=8, codebook_size=32, kmeans_init=True, learnable_codebook=True,
                                ema_update=False), 1),
    ],
)  # fmt: skip
def test_every_kind_of_layer_has_its_line(
    quantizer: Callable[[], nn.Module], layers: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = Around(quantizer()).train()
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    file = tmp_path / "t.jsonl"
    with Monitor(model, every=10, out=file, on_collapse=lambda event: None) as monitor:
        for _ in range(20):
            x = torch.randn(16, 8, 3)
            out, loss = model(x)
            adam.zero_grad()
            ((out - x).square().mean() + loss).backward()
            adam.step()
            monitor.step()
    trace = read_trace(file)
    assert len(trace.start.layers) == layers and len(trace.intervals) == 2 * layers
    assert all(row.perplexity and row.z_e_norm and row.error is not None for row in trace.intervals)
    assert [row.level_correlation is not None for row in trace.intervals] == [False, True][:layers] * 2
    assert all(row.gradient for row in trace.intervals[::layers])


def test_two_monitors_with_one_trace_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [train(2, Digits()), train(2, Digits())]
    with (
        Monitor(next(runs[0]), out="one.vqtrace.jsonl") as first,
        Monitor(next(runs[1]), out="one.vqtrace.jsonl") as second,
        pytest.warns(CollapseWarning, match="another monitor") as told,
    ):
        for run, monitor in zip(runs, (first, second), strict=True):
            next(run)
            monitor.step()
    assert told[0].filename == __file__
    with Monitor(next(run := train(2, Digits())), out="one.vqtrace.jsonl") as third:
        next(run)
        third.step()  # the others have ended


def test_a_loss_that_is_no_number_is_refused_at_once() -> None:
    run = train(2, Digits())
    with (
        Monitor(next(run), out=None) as monitor,
        pytest.raises(UserError, match=r"task_loss is a tensor of shape \[3\]"),
    ):
        monitor.step(task_loss=torch.ones(3))
