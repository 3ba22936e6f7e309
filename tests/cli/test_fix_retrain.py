"""`vqdoctor fix --retrain` as a shell runs it: exit codes, what is written, said and taken up again."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import PATIENCE, python, start
from small_training import sick_checkpoint

from vqdoctor.core.retraining import STOPPING

Run = Callable[..., Any]
EASY = ("--min-perplexity", "2", "--min-usage", "0.05", "--min-accuracy", "0", "--max-ece", "1")
LONG = ("--epochs", "400", "--warmup", "400", *EASY)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sick_checkpoint(tmp_path_factory.mktemp("sick"))


@pytest.fixture
def small(made: Path, tmp_path: Path) -> Path:
    """A sick checkpoint and its data, in the folder in which the shell runs."""
    for name in ("sick.pt", "digits.npz"):
        (tmp_path / name).write_bytes((made.parent / name).read_bytes())
    return tmp_path / "sick.pt"


def test_cured_with_a_picture_and_what_is_left_to_change(shell: Run, small: Path, tmp_path: Path) -> None:
    before = small.read_bytes()
    done = shell("fix", small, "--retrain", "--epochs", "4", *EASY, "--save", "json=r.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("CURED: all 4 goals met after 4 epochs")
    assert "until then inspect and gate with your code still find VQ101, VQ302" in done.stdout
    assert "vq has no straight-through estimator (VQ101): end it with:" in done.stdout
    assert "z_q = z_e + (z_q - z_e).detach()" in done.stdout
    assert done.stderr == f"picture: {tmp_path / 'sick.fixed.png'}\n"
    assert (tmp_path / "sick.fixed.png").read_bytes().startswith(b"\x89PNG")
    assert small.read_bytes() == before
    assert torch.load(tmp_path / "sick.fixed.pt", weights_only=True)["config"]["num_codes"] == 32
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["retraining"]["cured"] and len(report["retraining"]["epochs"]) == 4
    bare = shell("inspect", "sick.fixed.pt", "--ignore", "VQ401", "-f", "json")
    assert "VQ101" not in {finding["code"] for finding in json.loads(bare.stdout)["findings"]}
    with_source = shell("inspect", "sick.fixed.pt", "--data", "digits.npz")
    assert with_source.returncode == 1 and "VQ101" in with_source.stdout  # the source is as it was


def test_missed_goals_exit_1_and_the_output_is_written(shell: Run, small: Path, tmp_path: Path) -> None:
    done = shell("fix", small, "--retrain", "--epochs", "1", "--min-perplexity", "31.9", "-o", "out.pt")
    assert done.returncode == 1 and "✗" in done.stdout and (tmp_path / "out.pt").is_file()
    assert not done.stdout.startswith("CURED")
    assert "the run was too short: give more --epochs or --steps" in " ".join(done.stdout.split())


def interrupted(command: list[str | Path], folder: Path, environment: dict[str, str]) -> tuple[int, str, str]:
    """Interrupt a run after its first epoch; return its exit code, and what it told and said."""
    with start(*command, cwd=folder, env=environment, stderr=subprocess.PIPE) as run:
        state = folder / "out.pt.resume"
        while not state.exists():
            assert run.poll() is None, run.communicate()
            time.sleep(0.02)
        run.send_signal(signal.SIGINT)
        told, said = run.communicate(timeout=PATIENCE)
    return run.returncode, told, said


def test_an_epoch_without_vq_is_nothing_to_write(
    small: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    command = ["-m", "vqdoctor", "fix", small, "--retrain", *LONG, "-o", "out.pt"]
    code, told, said = interrupted(command, tmp_path, environment)
    assert code == 130 and "interrupted before the output was written" in said and not told
    assert (tmp_path / "out.pt.resume").is_file() and not (tmp_path / "out.pt").exists()


def test_interrupted_and_taken_up_again(small: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    skip = ("--skip", "autoencoder-warm-up")
    command = ["-m", "vqdoctor", "fix", small, "--retrain", *LONG, *skip, "-o", "out.pt"]
    code, told, said = interrupted(command, tmp_path, environment)
    assert code == 3, said  # though easy goals may hold already
    assert STOPPING in said  # it takes as long as an examination
    assert "interrupted" in told.lower() and (tmp_path / "out.pt").is_file()
    again = [*command, "--overwrite"]
    refused = python(*again, cwd=tmp_path, env=environment)
    assert refused.returncode == 2 and "add --resume to go on" in refused.stderr
    mine = (tmp_path / "out.pt").read_bytes()
    (tmp_path / "out.pt").write_bytes(b"another file of the user")
    refused = python(*command, "--resume", cwd=tmp_path, env=environment)
    assert refused.returncode == 2 and "exists already" in refused.stderr
    assert (tmp_path / "out.pt").read_bytes() == b"another file of the user"
    (tmp_path / "out.pt").write_bytes(mine)
    other = [*command, "--resume", "--vq-weight", "0.3"]
    refused = python(*other, cwd=tmp_path, env=environment)
    assert refused.returncode == 2 and "other settings" in refused.stderr


def test_a_full_disk_is_one_error(small: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    command = ["-m", "vqdoctor", "fix", small, "--retrain", "--epochs", "2", *EASY, "-o", "out.pt"]
    done = python(*command, cwd=tmp_path, env=environment, preexec_fn=fill)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and "make room" in done.stderr and done.stdout == ""
    assert sorted(file.name for file in tmp_path.iterdir()) == ["digits.npz", "sick.pt"]


def test_a_dry_run_prints_the_plan_and_its_minutes_and_writes_nothing(
    shell: Run, small: Path, tmp_path: Path
) -> None:
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    done = shell("fix", "sick.pt", "--retrain", "--dry-run", "--epochs", "7", "--vq-weight", "0.5")
    assert done.returncode == shell("inspect", "sick.pt").returncode == 1
    told = " ".join(done.stdout.split())
    assert "at most 7 epochs of" in told and "minutes on cpu" in told and "a dry run" in told
    assert "as many epochs without VQ" in told
    assert told.startswith("FIX: would apply straight-through, ") and "to apply straight-through" in told
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    (tmp_path / "sick.fixed.pt").write_bytes(b"mine")
    again = shell("fix", "sick.pt", "--retrain", "--dry-run", "--epochs", "7")
    assert again.returncode == 1 and "sick.fixed.pt exists" in again.stdout
    assert (tmp_path / "sick.fixed.pt").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["model.pt"], "retraining needs the model, its data and its losses"),
        (["sick.pt", "--vq-weight", "heavy"], "neither a weight nor auto"),
        (["sick.pt", "--only", "calibrate"], "retraining cannot apply calibrate"),
        (["sick.pt", "--only", "warm-upp"], "did you mean warm-up"),
        (["sick.pt", "-o", "nowhere/out.pt"], "there is no folder"),
        (["sick.pt", "--task", "nowhere.py:task"], "nowhere.py"),
        (["alone/sick.pt"], "digits.npz"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_an_error_and_a_help(
    arguments: list[str], says: str, shell: Run, small: Path, tmp_path: Path
) -> None:
    torch.save({"model": {"vq.embedding.weight": torch.randn(64, 8)}}, tmp_path / "model.pt")
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "sick.pt").write_bytes(small.read_bytes())
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    done = shell("fix", *arguments, "--retrain")
    assert done.returncode == 2 and done.stdout == ""
    error, *help = done.stderr.splitlines()
    assert error.startswith("error: ") and says in done.stderr
    assert len(help) <= 1 and all(line.startswith("help: ") for line in help)
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_without_torch_it_says_what_to_install(shell: Run, small: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['torch'] = None")
    done = shell("fix", small, "--retrain", PYTHONPATH=f"{tmp_path}:{Path(__file__).parents[2]}")
    assert done.returncode == 2 and "pip install 'vqdoctor[torch]'" in done.stderr
    assert done.stderr.count("\n") == 1
