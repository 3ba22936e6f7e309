"""`vqdoctor fix` as a shell runs it: exit codes, what is written, and what is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_files import codebook_state

from vqdoctor.checkpoint import open_checkpoint

SAMPLES = Path(__file__).parents[2] / "sample_checkpoints"
Run = Callable[..., Any]


def patient(path: Path, codes: int = 64) -> Path:
    """A checkpoint that uses 4 of its codes."""
    state = codebook_state(codes)
    state["vq.embedding"][4:] += 40
    state["vq.ema_cluster_size"][4:] = 1e-12
    state["vq.ema_embedding_sum"] = state["vq.embedding"] * state["vq.ema_cluster_size"][:, None]
    torch.save({"model": state, "epoch": 3}, path)
    return path


def test_dead_codes_come_back_and_data_proves_it(shell: Run, tmp_path: Path) -> None:
    source = SAMPLES / "dead-codes.pt"
    before = source.read_bytes()
    done = shell(
        "fix",
        source,
        "-o",
        "out.pt",
        "--data",
        SAMPLES / "digits.npz",
        "--save",
        "json=r.json",
        "-f",
        "markdown",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "**FIX: applied revive-dead-codes" in done.stdout
    report = json.loads((tmp_path / "r.json").read_text())
    (repair,) = (r for r in report["repairs"] if r["status"] == "applied")
    assert repair["before"]["active"] < 200 and repair["after"]["active"] > 900
    assert repair["after"]["perplexity"] > 5 * repair["before"]["perplexity"]
    # Revival moves no code that is in use; on 397 samples the accuracy is uncertain by 0.8 points.
    assert repair["after"]["accuracy"] > repair["before"]["accuracy"] - 0.02
    assert source.read_bytes() == before
    assert (
        torch.load(tmp_path / "out.pt", weights_only=False).keys()
        == torch.load(source, weights_only=False).keys()
    )


def test_the_default_output_and_the_only_checkpoint_said_aloud(shell: Run, tmp_path: Path) -> None:
    patient(tmp_path / "model.pt")
    done = shell("fix")
    assert done.returncode == 3  # without data, nothing tells what was gained
    assert done.stderr == "checkpoint: model.pt, the only checkpoint here\n"
    assert len(open_checkpoint(tmp_path / "model.fixed.pt").history) == 1
    again = shell("fix")
    assert again.returncode == 2 and "model.fixed.pt: exists already" in again.stderr
    assert shell("fix", "--overwrite").returncode == 3


def test_a_dry_run_prints_every_change_and_writes_nothing(shell: Run, tmp_path: Path) -> None:
    patient(tmp_path / "model.pt")
    done = shell("fix", "model.pt", "--dry-run")
    assert done.returncode == shell("inspect", "model.pt").returncode == 1
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]
    for part in ("would apply revive-dead-codes", "model.vq.embedding: 60 of 64 codes", "dead codes 60"):
        assert part in done.stdout
    assert "model.vq.ema_cluster_size" in done.stdout and "model.vq.ema_embedding_sum" in done.stdout


def test_a_cause_in_the_source_stays_a_finding(shell: Run, sick: Path, tmp_path: Path) -> None:
    done = shell("fix", sick, "-o", "out.pt")
    assert done.returncode == 1 and not (tmp_path / "out.pt").exists()
    assert "straight-through" in done.stdout and "nothing was written" in done.stdout


def test_a_healthy_checkpoint_needs_nothing(shell: Run, healthy: Path, tmp_path: Path) -> None:
    done = shell("fix", healthy, "-o", "out.pt")
    assert done.returncode == 0 and not (tmp_path / "out.pt").exists()
    assert "nothing was written" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.pt"], "nowhere.pt: no such file"),
        (["model.pt", "-o", "model.pt"], "this is the input"),
        (["model.pt", "-o", "link.pt"], "this is the input"),
        (["model.pt", "-o", "hard.pt", "--overwrite"], "this is the input"),
        (["model.pt", "-o", "no/folder/out.pt"], "there is no folder"),
        (["model.pt", "-o", "folder"], "not a regular file"),
        (["model.pt", "--only", "revive-dead-code"], "did you mean revive-dead-codes"),
        (["model.pt", "--skip", "nothing-like-it"], "there is no remedy"),
        (["model.pt", "--from", "r.json"], "leave one of them out"),
        (["--from", "r.json"], "No such file"),
        (["model.pt", "--save", "json=model.fixed.pt"], "this is an input"),
        (["model.pt", "-o", "z.npz", "--data", "z.npz", "--overwrite"], "this is an input"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_an_error_and_a_help(
    arguments: list[str], says: str, shell: Run, tmp_path: Path
) -> None:
    path = patient(tmp_path / "model.pt")
    (tmp_path / "link.pt").symlink_to(path)
    (tmp_path / "hard.pt").hardlink_to(path)
    (tmp_path / "folder").mkdir()
    shutil.copy(SAMPLES / "digits.npz", tmp_path / "z.npz")
    before = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    done = shell("fix", *arguments)
    assert done.returncode == 2 and done.stdout == ""
    error, *help = done.stderr.splitlines()
    assert error.startswith("error: ") and says in done.stderr
    assert len(help) <= 1 and all(line.startswith("help: ") for line in help)
    assert before == {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}


def test_several_checkpoints_are_listed_as_commands(shell: Run, tmp_path: Path) -> None:
    patient(tmp_path / "a.pt")
    patient(tmp_path / "b.pt")
    done = shell("fix")
    assert done.returncode == 2 and "vqdoctor fix a.pt | vqdoctor fix b.pt" in done.stderr


def test_the_settings_name_the_checkpoint(shell: Run, tmp_path: Path) -> None:
    patient(tmp_path / "a.pt")
    patient(tmp_path / "b.pt")
    (tmp_path / "pyproject.toml").write_text('[tool.vqdoctor]\ncheckpoint = "b.pt"\n')
    done = shell("fix", "--dry-run")
    assert done.returncode == 1 and "b.pt, named by tool.vqdoctor.checkpoint" in done.stderr


def test_a_report_names_the_checkpoint(shell: Run, tmp_path: Path) -> None:
    patient(tmp_path / "a.pt")
    patient(tmp_path / "b.pt")
    shell("inspect", "b.pt", "--save", "json=r.json")
    done = shell("fix", "--from", "r.json")
    assert done.stderr == "checkpoint: b.pt, named by r.json\n"
    assert (tmp_path / "b.fixed.pt").exists()


def test_a_damaged_file_is_not_repaired(shell: Run, tmp_path: Path) -> None:
    path = patient(tmp_path / "model.pt")
    raw = bytearray(path.read_bytes())
    at = raw.find(torch.load(path, weights_only=True)["model"]["vq.embedding"].numpy().tobytes()[:64])
    raw[at + 5] ^= 0x10
    path.write_bytes(raw)
    done = shell("fix", "model.pt")
    assert done.returncode == 2 and "checksum" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_without_data_torch_is_not_loaded(shell: Run, tmp_path: Path) -> None:
    patient(tmp_path / "model.pt")
    (tmp_path / "torch.py").write_text("raise SystemExit(99)")
    done = shell("fix", "model.pt", PYTHONPATH=f"{tmp_path}:{Path(__file__).parents[2]}")
    assert done.returncode == 3, done.stderr
