"""The one way to start a process from a test: it waits long enough for a machine with ten other jobs."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

PATIENCE = 600
"""Seconds after which a process counts as hanging: far above any time here, on a busy machine too."""


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, and return its exit code and what it wrote."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    return subprocess.run([*map(str, command)], timeout=PATIENCE, **{**pipes, **options})


def python(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run this Python with these arguments."""
    return run(sys.executable, *arguments, **options)


def start(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    """Start this Python with these arguments. Whoever waits for it waits for `PATIENCE` seconds at most.

    Ctrl-C reaches it, even where the tests run in the background of a shell, which has it ignored.
    """
    pipes = {"stdout": subprocess.PIPE, "encoding": "utf-8", "preexec_fn": _heeds_ctrl_c}
    return subprocess.Popen([sys.executable, *map(str, arguments)], **{**pipes, **options})


def _heeds_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
