"""`fix --retrain` in the processes that torch's launcher starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from processes import PATIENCE, python, run, start
from ranked import as_rank, free_port, torchrun
from small_training import sick_checkpoint

EASY = ("--min-perplexity", "2", "--min-usage", "0.05", "--min-accuracy", "0", "--max-ece", "1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sick_checkpoint(tmp_path_factory.mktemp("ranked"))


def fixed(output: str, *more: str) -> list[str]:
    return ["-m", "vqdoctor", "fix", "sick.pt", "--retrain", *EASY, "-o", output, *more]


def differ(one: Path, other: Path) -> float:
    """Return the largest difference of the weights of two models."""
    a, b = (torch.load(path, weights_only=True)["model"] for path in (one, other))
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


def test_two_processes_write_and_print_once(made: Path, environment: dict[str, str]) -> None:
    folder, port = made.parent, free_port()
    arguments = fixed("two.pt", "--epochs", "1", "--save", "json=two.json")
    places = [as_rank(rank, 2, port, environment) for rank in (0, 1)]
    with (
        start(*arguments, cwd=folder, env=places[0], stderr=subprocess.PIPE) as first,
        start(*arguments, cwd=folder, env=places[1], stderr=subprocess.PIPE) as second,
    ):
        (told, said), others = first.communicate(timeout=PATIENCE), second.communicate(timeout=PATIENCE)
    assert first.returncode == 0 and said == "picture: two.png\n", said
    assert told.startswith("CURED") and second.returncode == 0 and others == ("", "")
    report = json.loads((folder / "two.json").read_text())
    assert report["retraining"]["processes"] == 2 and report["retraining"]["cured"]
    assert not any("whole batches" in note for note in report["notes"])


def test_other_processes_leave_the_other_commands_to_the_first(
    made: Path, environment: dict[str, str]
) -> None:
    place = as_rank(1, 2, free_port(), environment)
    for command in (["gate", "sick.pt"], ["fix", "sick.pt", "-o", "bare.pt"]):
        done = python("-m", "vqdoctor", *command, cwd=made.parent, env=place)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (made.parent / "bare.pt").exists()


@pytest.mark.accept
@pytest.mark.parametrize("size", [2, 4])
def test_the_launcher_runs_it_as_one_process_would(
    size: int, made: Path, environment: dict[str, str]
) -> None:
    folder = made.parent
    one = python(*fixed("one.pt", "--epochs", "4", "--overwrite"), cwd=folder, env=environment)
    several = python(*torchrun(size, *fixed(f"of-{size}.pt", "--epochs", "4")), cwd=folder, env=environment)
    assert one.returncode == several.returncode == 0, several.stderr
    assert several.stdout.count("BEFORE AND AFTER") == 1
    assert differ(folder / "one.pt", folder / f"of-{size}.pt") < 1e-5


@pytest.mark.accept
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_all_with_one_line_and_four_go_on(
    killed: int, made: Path, environment: dict[str, str]
) -> None:
    folder, output = made.parent, f"killed-{killed}.pt"
    long = ("--epochs", "60", "--warmup", "10", "--min-perplexity", "31")
    with start(
        *torchrun(2, *fixed(output, *long)), cwd=folder, env=environment, stderr=subprocess.PIPE
    ) as launched:
        while not (folder / f"{output}.resume").exists():
            assert launched.poll() is None, launched.communicate()
            time.sleep(0.05)
        children = run("pgrep", "-P", str(launched.pid)).stdout.split()
        os.kill({rank_of(int(child)): int(child) for child in children}[killed], signal.SIGKILL)
        told, said = launched.communicate(timeout=PATIENCE)
    ours = [line for line in said.splitlines() if line.startswith(("error: ", "help: ", "interrupted"))]
    print(ours)
    assert launched.returncode != 0 and told == "" and len(ours) == 1, said
    assert "--resume goes on from the last epoch" in ours[0]
    assert not (folder / output).exists()
    goes_on = fixed(output, *long, "--resume", "--save", "json=on.json")
    on = python(*torchrun(4, *goes_on), cwd=folder, env=environment)
    assert on.returncode in (0, 1) and (folder / output).exists(), on.stderr
    retraining = json.loads((folder / "on.json").read_text())["retraining"]
    assert retraining["processes"] == 4
    assert [row["epoch"] for row in retraining["epochs"]] == [*range(1, len(retraining["epochs"]) + 1)]


def rank_of(process: int) -> int:
    variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    return next(int(v[5:]) for v in variables if v.startswith(b"RANK="))
