"""Trainings that are killed, and what TensorBoard's files hold of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from processes import PATIENCE, start

TESTS = Path(__file__).parent


def read_board(folder: Path) -> tuple[dict[str, list[int]], dict[str, Any]]:
    """Return the steps of each scalar, and the newest of each histogram, that a folder's files hold."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    scalars: dict[str, list[int]] = {}
    histograms: dict[str, Any] = {}
    for file in sorted(folder.rglob("events.out.tfevents.*")):
        board = EventAccumulator(str(file), size_guidance={"scalars": 0, "histograms": 0})
        board.Reload()
        for tag in board.Tags()["scalars"]:
            scalars.setdefault(tag, []).extend(event.step for event in board.Scalars(tag))
        for tag in board.Tags()["histograms"]:
            histograms[tag] = board.Histograms(tag)[-1].histogram_value
    return scalars, histograms


def killed(script: str, *args: str | Path, when: Path, lines: int) -> None:
    """Run a script beside the tests, and kill it with -9 once a file has so many lines."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS), *sys.path])}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = start("-W", "ignore", "-c", script, *args, env=env, **quiet)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        if when.exists() and when.read_bytes().count(b"\n") >= lines:
            break
        time.sleep(0.05)
    assert process.poll() is None, "the training ended before it was killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
