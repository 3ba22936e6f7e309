"""The pre-commit hook: it takes checkpoints and nothing else, and its entry judges them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import python

import vqdoctor

ROOT = Path(vqdoctor.__file__).parents[1]
SAMPLES = ROOT / "sample_checkpoints"


@pytest.fixture
def hook() -> dict[str, Any]:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    return hook


def run(hook: dict[str, Any], *files: Path) -> subprocess.CompletedProcess[str]:
    """Run the entry as pre-commit does: the words of the entry, then the files."""
    command, *words = hook["entry"].split()
    assert command == "vqdoctor"
    return python("-m", "vqdoctor", *words, *files, cwd=ROOT)


def test_it_has_what_pre_commit_asks_for(hook: dict[str, Any]) -> None:
    assert {"id", "name", "entry", "language", "files", "require_serial"} <= hook.keys()
    assert (hook["language"], hook["require_serial"]) == ("python", True)


@pytest.mark.parametrize(
    ("path", "taken"),
    [
        ("a.pt", True), ("runs/b.pth", True), ("c.ckpt", True), ("d/e.safetensors", True),
        ("a.py", False), ("receipt", False), ("b.pt.md", False), ("script", False), ("x.npz", False),
    ],
)  # fmt: skip
def test_it_takes_checkpoints_alone(hook: dict[str, Any], path: str, taken: bool) -> None:
    assert bool(re.search(hook["files"], path)) is taken


def test_a_collapsed_checkpoint_stops_the_commit_and_healthy_ones_pass(hook: dict[str, Any]) -> None:
    healthy = [SAMPLES / "healthy-256.pt", SAMPLES / "healthy-512.pt"]
    done = run(hook, *healthy)
    assert done.returncode == 0, done.stdout + done.stderr
    done = run(hook, *healthy, SAMPLES / "no-ste.pt")
    assert done.returncode == 1
    assert "VQ101" in done.stdout
