"""`inspect` with the user's own code: options, exit codes and one error for every mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small_vqvae

from vqdoctor.cli.main import main

Run = Callable[..., "subprocess.CompletedProcess[str]"]

TASK = """
print("hello from the user's file")
from beside_the_task import DigitsTask, VQVAE
task = DigitsTask()
cut = DigitsTask(detach=True)

def build(codes, **more):
    print("building", codes, more)
    return VQVAE(codes=codes)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A user's folder: a checkpoint, a task file, a file that it imports, and a batch."""
    small_vqvae.save(tmp_path / "ckpt.pt", "model.")
    helpers = os.fspath(Path(small_vqvae.__file__).parent)
    (tmp_path / "beside_the_task.py").write_text(
        f"import sys\nsys.path.append({helpers!r})\nfrom small_vqvae import DigitsTask, VQVAE\n"
    )
    (tmp_path / "vq_task.py").write_text(TASK)
    np.savez(tmp_path / "x.npz", x=small_vqvae.digits()[0].numpy())
    return tmp_path


def test_a_task_file_with_a_file_beside_the_task(place: Path, shell: Run) -> None:
    done = shell("inspect", "ckpt.pt", "--task", "vq_task.py:task", "-f", "json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)  # what the user's code prints is on the other stream
    assert report["verdict"] == "healthy"
    assert "hello from the user's file" in done.stderr
    done = shell("inspect", "ckpt.pt", "--task", "vq_task:cut")
    assert done.returncode == 1
    assert "VQ102" in done.stdout


def test_a_factory_with_arguments(place: Path, shell: Run) -> None:
    done = shell(
        "inspect", "ckpt.pt", "--model", "vq_task.py:build", "--model-arg", "codes=32", "--model-arg",
        "name=text", "--model-arg", "shape=(1, 2)", "--data", "x.npz", "--vq-loss", "vq_loss",
        "--task-loss", "mse", "--trained-vq-weight", "0.25", "--batches", "3", "-f", "json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "building 32 {'name': 'text', 'shape': (1, 2)}" in done.stderr
    report = json.loads(done.stdout)
    assert any("mean squared error of recon" in note for note in report["notes"])
    (balance,) = (e for e in report["evidence"] if e["kind"] == "loss-balance")
    assert balance["vq_weight"] == 0.25
    assert balance["sample_size"] == 3 * 64 * 16


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--task", "vq_task.py"], "not of the form"),
        (["--task", "gone.py:task"], "no such file"),
        (["--task", "broken.py:task"], "broken.py:1: SyntaxError"),
        (["--task", "raises.py:task"], "(raises.py:2)"),
        (
            ["--model", "vq_task.py:build", "--data", "x.npz"],
            "missing 1 required positional argument: 'codes'",
        ),
        (["--model", "vq_task.py:build", "--model-arg", "codes"], "not of the form K=V"),
        (["--model", "hf", "--data", "x.npz"], "no config.json"),
        (["--batches", "0"], "--batches"),
        (["--vq-loss", "x"], "--vq-loss needs --model"),
        (["--data", "x.npz"], "--model PKG.MODULE:FACTORY"),
    ],
)
def test_a_mistake_is_2_and_one_error(
    options: list[str],
    says: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", sys.path[:])
    (place / "broken.py").write_text("def (\n")
    (place / "raises.py").write_text("x = {}\nx['task']\n")
    assert main(["inspect", "ckpt.pt", *options]) == 2
    output, complaints = capsys.readouterr()
    assert output == ""
    errors = [line for line in complaints.splitlines() if line.startswith("error: ")]
    helps = [line for line in complaints.splitlines() if line.startswith("help: ")]
    assert len(errors) == 1 and len(helps) <= 1 and says in "\n".join(errors + helps)
    assert "Traceback" not in complaints


def test_pyproject_names_the_task_and_the_report_says_so(place: Path, shell: Run) -> None:
    (place / "runs").mkdir()
    (place / "ckpt.pt").rename(place / "runs" / "ckpt.pt")
    (place / "pyproject.toml").write_text('[tool.vqdoctor]\ntask = "vq_task.py:cut"\nbatches = 2\n')
    done = shell("inspect", "runs/ckpt.pt", "-f", "json")
    assert done.returncode == 1, done.stderr
    named = f"task {place}/vq_task.py:cut, named by {place / 'pyproject.toml'}"
    assert done.stderr.splitlines()[0] == named
    assert named in json.loads(done.stdout)["notes"]
    bare = shell("inspect", "runs/ckpt.pt", "--bare", "-f", "json")
    assert bare.stderr == "" and named not in json.loads(bare.stdout)["notes"]


def test_a_saved_report_is_gated_whatever_pyproject_names(place: Path, shell: Run) -> None:
    assert shell("inspect", "ckpt.pt", "--save", "json=report.json").returncode in (0, 3)
    (place / "pyproject.toml").write_text('[tool.vqdoctor]\ntask = "vq_task.py:task"\nlayer = "vq"\n')
    done = shell("gate", "report.json")
    assert done.returncode in (0, 3), done.stderr
    assert "hello" not in done.stderr and "vq_task.py" not in done.stderr


def test_an_error_of_what_pyproject_names_names_the_file(place: Path, shell: Run) -> None:
    for task, says in (
        ("gone.py:task", f"{place}/gone.py: there is no such file"),
        ("vq_task.py:taks", "has no 'taks'\nhelp: did you mean task? it defines "),
    ):
        (place / "pyproject.toml").write_text(f'[tool.vqdoctor]\ntask = "{task}"\n')
        done = shell("inspect", "ckpt.pt")
        assert done.returncode == 2 and says in done.stderr
        _, help = [line for line in done.stderr.splitlines() if line.startswith(("error: ", "help: "))]
        assert help.endswith(f"tool.vqdoctor.task is set in {place / 'pyproject.toml'}")
