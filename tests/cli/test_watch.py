"""Following a training: lines where nobody watches, a board in a terminal, and q."""

from __future__ import annotations

import os
import pty
import select
import sys
import time
from pathlib import Path

import pytest
import torch
from processes import PATIENCE, start

from vqdoctor.cli.main import main
from vqdoctor.core.levels import Severity
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.core.trace import SCHEMA, End, Event, Interval, Start, TracedLayer
from vqdoctor.engine.watch import Followed
from vqdoctor.render import board
from vqdoctor.saved.trace import TraceWriter, read_trace

EVENT = Event(
    step=200, layer="vq", code="VQ501", severity=Severity.ERROR, message="It is lost.", since=100,
    remedies=("data-init",),
)  # fmt: skip


def begun(step: int = 0) -> Start:
    layers = (TracedLayer(name="vq", num_codes=256, dim=64),)
    return Start(step=step, schema=SCHEMA, version="0", every=100, layers=layers)


def interval(step: int) -> Interval:
    return Interval(step=step, layer="vq", vectors=400, perplexity=float(step), active=9)


@pytest.fixture
def writer(tmp_path: Path) -> TraceWriter:
    writer = TraceWriter(tmp_path / "run.vqtrace.jsonl", begun())
    writer.add(interval(100), interval(200), EVENT)
    return writer


def test_each_line_comes_once_and_a_resumed_run_is_followed(writer: TraceWriter) -> None:
    run = Followed(path=writer.path, user_model=UserModel(), settings=Settings())
    assert list(run.news()) == [interval(100), interval(200), EVENT]
    assert list(run.news()) == []
    writer.add(interval(300))
    assert list(run.news()) == [interval(300)]
    TraceWriter(writer.path, begun(150)).add(interval(250))
    assert list(run.news()) == [interval(250)]


def test_a_folder_shows_its_trace_and_each_checkpoint_once_written(writer: TraceWriter) -> None:
    folder = writer.path.parent
    run = Followed(path=folder, user_model=UserModel(), settings=Settings())
    assert len(list(run.news())) == 3
    torch.save({"vq.embedding.weight": torch.randn(64, 8)}, folder / "a.pt")
    whole = (folder / "a.pt").read_bytes()
    (folder / "a.pt").write_bytes(whole[: len(whole) // 2])
    assert list(run.news()) == []
    (folder / "a.pt").write_bytes(whole)
    (row,) = run.news()
    assert row.layer == "vq" and list(run.news()) == []  # type: ignore[union-attr]


def test_elsewhere_each_interval_is_a_line(writer: TraceWriter, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(writer.path), "--once"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step 100  vq: perplexity 100, active 9") and len(lines) == 3
    assert lines[2].startswith("step 200: VQ501 in vq: It is lost. It began at step 100. Remedy: data-init.")


def test_the_board_has_the_newest_figures_and_the_events(writer: TraceWriter) -> None:
    text = board(read_trace(writer.path))
    assert "step 200  vq" in text and "step 100  vq" not in text and "VQ501" in text and "▅█" in text


def test_it_ends_with_the_training_and_not_before(
    writer: TraceWriter, capsys: pytest.CaptureFixture[str]
) -> None:
    writer.add(End(step=200))
    assert main(["watch", str(writer.path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    TraceWriter(writer.path, begun(200))
    run = Followed(path=writer.path, user_model=UserModel(), settings=Settings())
    assert list(run.news()) and not run.ended


def test_nothing_to_watch_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(tmp_path / "gone"), "--once"]) == 2
    (tmp_path / "begun").mkdir()
    assert main(["watch", str(tmp_path / "begun"), "--once"]) == 0
    assert "neither a trace nor a checkpoint yet" in capsys.readouterr().err


def test_in_a_terminal_q_ends(writer: TraceWriter) -> None:
    here, there = pty.openpty()
    process = start("-m", "vqdoctor", "watch", writer.path, stdin=there, stdout=there, stderr=there)
    os.close(there)
    shown, until = b"", time.monotonic() + PATIENCE
    while b"q ends" not in shown and time.monotonic() < until:
        if select.select([here], [], [], 1)[0]:
            shown += os.read(here, 65536)
    os.write(here, b"q")
    ended = process.wait(timeout=PATIENCE)
    os.close(here)
    assert ended == 0 and b"VQ501" in shown and sys.platform != "win32"
