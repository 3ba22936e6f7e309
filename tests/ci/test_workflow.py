"""The workflow of the repository itself: valid, and its choice of torch is the floor of the extra."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import run

import vqdoctor

ROOT = Path(vqdoctor.__file__).parents[1]
JOB: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())["jobs"][
    "test"
]
MATRIX: list[dict[str, str]] = JOB["strategy"]["matrix"]["include"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_it_runs_the_target_that_people_run() -> None:
    assert JOB["steps"][-1] == {"run": "make test"}
    assert re.search(r"^test:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_it_has_the_oldest_and_the_newest_python_and_torch() -> None:
    assert {row["torch"] for row in MATRIX} == {"oldest", "newest"}
    versions = sorted({row["python"] for row in MATRIX}, key=lambda text: tuple(map(int, text.split("."))))
    assert PROJECT["requires-python"] == f">={versions[0]}"
    assert versions[-1] != versions[0]


@pytest.mark.parametrize("torch", ["oldest", "newest"])
def test_the_step_pins_torch_to_the_floor_of_the_extra(torch: str, tmp_path: Path) -> None:
    (step,) = [step for step in JOB["steps"] if step.get("name") == "Choose torch"]
    for name in ("constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    before = (ROOT / "constraints.txt").read_text().splitlines()
    script = step["run"].replace("${{ matrix.torch }}", torch)
    assert run("bash", "-e", "-c", script, cwd=tmp_path).returncode == 0
    after = (tmp_path / "constraints.txt").read_text().splitlines()
    (extra,) = PROJECT["optional-dependencies"]["torch"]
    floor = extra.removeprefix("torch>=")
    kept = [line for line in before if not line.startswith(("torch==", "sympy=="))]
    assert after == kept + ([f"torch=={floor}.*"] if torch == "oldest" else [])
