"""The file of a trace: whole after a kill, bounded, and resumed with its run."""

from __future__ import annotations

from pathlib import Path

import pytest

from vqdoctor.core.errors import UserError
from vqdoctor.core.levels import Severity
from vqdoctor.core.trace import SCHEMA, Event, Interval, Start, TracedLayer
from vqdoctor.saved import trace
from vqdoctor.saved.trace import TraceWriter, read_trace, thinned

LAYERS = (TracedLayer(name="vq", num_codes=256, dim=64),)


def start(step: int = 0) -> Start:
    return Start(step=step, schema=SCHEMA, version="0", every=100, layers=LAYERS)


def interval(step: int) -> Interval:
    return Interval(step=step, layer="vq", vectors=400, perplexity=float(step))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.vqtrace.jsonl"


def test_what_was_added_is_read_at_once(file: Path) -> None:
    writer = TraceWriter(file, start())
    event = Event(step=200, layer="vq", code="VQ501", severity=Severity.ERROR, message="x", since=100)
    writer.add(interval(100), interval(200), event)
    found = read_trace(file)
    assert found.of("vq") == [interval(100), interval(200)] and found.events == (event,)
    assert found.start == start()


def test_a_torn_last_line_is_no_line(file: Path) -> None:
    TraceWriter(file, start()).add(interval(100), interval(200))
    file.write_bytes(file.read_bytes()[:-9])
    assert read_trace(file).of("vq") == [interval(100)]


def test_a_run_resumes_after_a_torn_line_and_voids_later_steps(file: Path) -> None:
    TraceWriter(file, start()).add(*(interval(step) for step in (100, 200, 300)))
    file.write_bytes(file.read_bytes()[:-9])
    TraceWriter(file, start(150)).add(interval(250))
    assert [row.step for row in read_trace(file).of("vq")] == [100, 250]


def test_a_new_start_alone_voids_later_steps(file: Path) -> None:
    """As by two writers of one file, of which the first was killed."""
    TraceWriter(file, start()).add(interval(100), interval(200), start(100), interval(150))
    assert [row.step for row in read_trace(file).of("vq")] == [100, 150]


@pytest.mark.parametrize("text", ["", "{}\n", "no json\n", '{"kind": "start", "schema": 9, "step": 0}\n'])
def test_what_is_no_trace_is_said(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(UserError):
        read_trace(file)


def test_a_damaged_line_is_named(file: Path) -> None:
    TraceWriter(file, start()).add(interval(100), interval(200))
    file.write_text(file.read_text().replace('"step": 100', '"step": "x"'))
    with pytest.raises(UserError, match=r"line 2 .*step"):
        read_trace(file)


def test_a_trace_stays_bounded_and_keeps_its_ends(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "MOST", 40)
    monkeypatch.setattr(trace, "NEWEST", 10)
    writer = TraceWriter(file, start())
    for step in range(1, 501):
        writer.add(interval(step))
    steps = [row.step for row in read_trace(file).of("vq")]
    assert len(steps) <= 41 and steps[0] == 1 and steps[-10:] == list(range(491, 501))
    assert steps == sorted(set(steps))


def test_a_thinned_step_goes_with_all_its_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "NEWEST", 2)
    rows = [Interval(step=step, layer=name, vectors=1) for step in (1, 2, 3, 4) for name in "ab"]
    assert [(row.step, row.layer) for row in thinned(rows)] == [
        (step, name) for step in (1, 3, 4) for name in "ab"
    ]
