"""README's section on CI: its YAML is YAML, its commands run, and they write the files that they promise."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from readme import README, ROOT, SAMPLES

from vqdoctor.cli.main import main

SECTION = README.read_text().split("## In CI")[1].split("\n## ")[0]
GITHUB, GITLAB, PRE_COMMIT = (
    yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", SECTION, re.DOTALL)
)
COMMANDS = re.findall(r"vqdoctor gate (runs/[^'\n]*)", SECTION)


@pytest.fixture(autouse=True)
def _repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    shutil.copy(SAMPLES / "no-ste.pt", tmp_path / "runs" / "last.pt")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run_and_write_what_the_job_keeps(command: str, tmp_path: Path) -> None:
    assert main(["gate", *shlex.split(command)]) == 1
    for file in re.findall(r"--save \w+=(\S+)", command):
        assert (tmp_path / file).read_text()


def test_both_jobs_are_there_and_keep_what_the_commands_write() -> None:
    assert len(COMMANDS) == 2
    kept = GITLAB["vqdoctor"]["artifacts"]["reports"]
    assert f"--save junit={kept['junit']}" in COMMANDS[0]
    assert f"--save gitlab={kept['codequality']}" in COMMANDS[0]
    assert set(re.findall(r"\w+=(\S+)", COMMANDS[1])) == set(re.findall(r"'(vq\.\w+)'", SECTION))


def test_the_github_job_gives_inputs_that_the_action_has() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    (step,) = [step for step in GITHUB["steps"] if step.get("id") == "vq"]
    given: dict[str, Any] = step["with"]
    assert given.keys() <= action["inputs"].keys()
    assert main(["gate", given["checkpoint"], *shlex.split(given["args"])]) == 1
    assert GITHUB["steps"][-1]["with"]["sarif_file"] == given["sarif-file"]
    asked = re.findall(r"steps\.vq\.outputs\.([\w-]+)", SECTION)
    assert asked and set(asked) <= action["outputs"].keys()


def test_the_hook_is_the_one_that_we_have() -> None:
    (ours,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    (hook,) = PRE_COMMIT["repos"][0]["hooks"]
    assert hook["id"] == ours["id"]
    assert re.search(hook["files"], "runs/last.pt")
    assert main([*ours["entry"].split()[1:], *hook["args"], "runs/last.pt"]) == 1
