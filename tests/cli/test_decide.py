"""`vqdoctor inspect --decide` as a shell runs it: what it needs, where it says what, and what it shows."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize("data", ["none", "dump"])
def test_without_a_model_there_is_nothing_to_train(shell: Run, sick: Path, tmp_path: Path, data: str) -> None:
    np.savez(tmp_path / "dump.npz", indices=np.zeros((8, 4), dtype=np.int64))
    given = ("--data", "dump.npz") if data == "dump" else ()
    done = shell("inspect", sick, *given, "--decide")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: --decide trains copies of the model, and no model is run\n"
        "help: add --task FILE.py:NAME, or --model and --data with x (and y)\n"
    )


def test_probe_steps_are_the_steps_of_the_experiments(shell: Run, sick: Path, tmp_path: Path) -> None:
    """The sample lacks its straight-through estimator, so an experiment puts one behind the layer."""
    digits = ("--data", sick.with_name("digits.npz"))
    done = shell("inspect", sick, *digits, "--probe-steps", "4", "-f", "json", "--save", "rich=report.txt")
    report = json.loads(done.stdout)  # the progress is told elsewhere
    (told,) = [item for item in report["evidence"] if item["kind"] == "experiments"]
    assert (told["sample_size"], told["own"]) == (4, True)
    assert "straight-through" in told["names"]
    assert report["findings"][0]["code"] == "VQ101", "a cut gradient is proven, whatever four steps show"
    text = " ".join((tmp_path / "report.txt").read_text(encoding="utf-8").split())
    assert "EXPERIMENTS: 4 TRAINING STEPS EACH, ON COPIES OF THE MODEL" in text
    assert "unchanged" in text and "a straight-through estimator behind the VQ layer: " in text
