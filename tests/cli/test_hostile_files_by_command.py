"""Every hostile or odd file gets exactly its exit code and one clear line, as a real process."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile_files import HOSTILE_FILES, canary, healthy
from processes import python

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize("name", HOSTILE_FILES)
def test_exit_code_and_words(name: str, shell: Run, tmp_path: Path) -> None:
    hostile = HOSTILE_FILES[name]
    path = tmp_path / f"odd{hostile.suffix}"
    hostile.build(path)
    done = shell("inspect", path)
    assert done.returncode == hostile.exit_code, done.stdout + done.stderr
    assert hostile.says in " ".join((done.stdout + done.stderr).lower().split())
    assert "Traceback" not in done.stderr
    assert not canary(path).exists()
    if hostile.exit_code == 2:
        assert done.stdout == ""
        assert "weights_only=False" not in done.stderr
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") <= 4


def test_an_unreadable_file_takes_no_longer_than_a_healthy_one(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.pt", tmp_path / "bad.pt"
    healthy(good)
    HOSTILE_FILES["zip-bomb"].build(bad)

    def seconds(path: Path) -> float:
        start = time.perf_counter()
        python("-m", "vqdoctor", "inspect", path)
        return time.perf_counter() - start

    pairs = [(seconds(bad), seconds(good)) for _ in range(3)]
    assert min(b / g for b, g in pairs) < 1.5
