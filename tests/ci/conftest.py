"""The steps of action.yml, run as GitHub's runner runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import processes
import pytest
import yaml

import vqdoctor

ROOT = Path(vqdoctor.__file__).parents[1]
SAMPLES = ROOT / "sample_checkpoints"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What the step left behind."""

    code: int
    log: str
    outputs: dict[str, str]
    summary: str
    workspace: Path


Step = Callable[..., Job]


def action() -> dict[str, Any]:
    """The action, as a YAML reader sees it."""
    return yaml.safe_load((ROOT / "action.yml").read_text())


def step_called(name: str) -> dict[str, Any]:
    (step,) = [step for step in action()["runs"]["steps"] if step["id"] == name]
    return step


def filled(value: str, inputs: dict[str, str]) -> str:
    """What the runner puts in the place of the one expression of an environment variable."""
    expression = value.removeprefix("${{ ").removesuffix(" }}")
    if expression.startswith("inputs."):
        return inputs[expression.removeprefix("inputs.")]
    return {"steps.install.outputs.bin": str(Path(sys.executable).parent)}[expression]


@pytest.fixture
def gate_step(tmp_path: Path) -> Step:
    """The step that judges, with the action's defaults below the given inputs."""
    workspace, temporary = tmp_path / "repo", tmp_path / "runner"
    for folder in (workspace / ".git", temporary):
        folder.mkdir(parents=True)
    for name in ("healthy-256.pt", "no-ste.pt", "stalled-ema.pt"):
        (workspace / name).symlink_to(SAMPLES / name)

    def run(**inputs: str) -> Job:
        step = step_called("gate")
        defaults = {name: str(told.get("default", "")) for name, told in action()["inputs"].items()}
        given = {**defaults, **{name.replace("_", "-"): value for name, value in inputs.items()}}
        script = temporary / "step.sh"
        script.write_text(step["run"])
        output, summary = temporary / "output", temporary / "summary"
        output.write_text("")
        summary.write_text("")
        environment = {
            **{k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "NO_COLOR", "COLUMNS")},
            **{name: filled(value, given) for name, value in step["env"].items()},
            "PYTHONPATH": str(ROOT),
            "RUNNER_TEMP": str(temporary),
            "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": str(workspace),
            "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(summary),
        }
        assert step["shell"] == "bash"
        shell = ("bash", "--noprofile", "--norc", "-eo", "pipefail")  # as "shell: bash" means
        done = processes.run(*shell, script, cwd=workspace, env=environment, stderr=subprocess.STDOUT)
        pairs = (line.split("=", 1) for line in output.read_text().splitlines())
        return Job(
            code=done.returncode,
            log=done.stdout,
            outputs=dict(pairs),  # type: ignore[arg-type]
            summary=summary.read_text(),
            workspace=workspace,
        )

    return run
