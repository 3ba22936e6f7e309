"""The snippets for CI: their YAML is YAML, their commands run, and they write the files that they promise."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from pages import ROOT, SAMPLES

from vqdoctor.cli.main import main

PAGE = (ROOT / "docs" / "formats-and-ci.md").read_text()
README = (ROOT / "README.md").read_text()


def yaml_blocks(text: str) -> list[Any]:
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


GITHUB, GITLAB, PRE_COMMIT = yaml_blocks(PAGE)
(README_GITHUB,) = yaml_blocks(README)
COMMANDS = re.findall(r"vqdoctor gate (runs/[^'\n]*)", PAGE)


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


@pytest.mark.parametrize("command", re.findall(r"vqdoctor gate (runs/.*)", README))
def test_the_guide_has_commands_that_run(command: str) -> None:
    assert main(["gate", *shlex.split(command, comments=True)]) == 1


def test_both_jobs_are_there_and_keep_what_the_commands_write() -> None:
    assert len(COMMANDS) == 2
    kept = GITLAB["vqdoctor"]["artifacts"]["reports"]
    assert f"--save junit={kept['junit']}" in COMMANDS[0]
    assert f"--save gitlab={kept['codequality']}" in COMMANDS[0]
    assert set(re.findall(r"\w+=(\S+)", COMMANDS[1])) == set(re.findall(r"'(vq\.\w+)'", PAGE))


@pytest.mark.parametrize("job", [GITHUB, README_GITHUB], ids=["reference", "guide"])
def test_the_github_job_gives_inputs_that_the_action_has(job: dict[str, Any]) -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    (step,) = [step for step in job["steps"] if step["uses"].startswith("OWNER/")]
    given: dict[str, Any] = step["with"]
    assert given.keys() <= action["inputs"].keys()
    assert main(["gate", given["checkpoint"], *shlex.split(given["args"])]) == 1


def test_the_github_job_uploads_the_file_that_the_action_writes() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    (step,) = [step for step in GITHUB["steps"] if step.get("id") == "vq"]
    assert GITHUB["steps"][-1]["with"]["sarif_file"] == step["with"]["sarif-file"]
    asked = re.findall(r"steps\.vq\.outputs\.([\w-]+)", PAGE)
    assert asked and set(asked) <= action["outputs"].keys()


def test_the_hook_is_the_one_that_we_have() -> None:
    (ours,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    (hook,) = PRE_COMMIT["repos"][0]["hooks"]
    assert hook["id"] == ours["id"]
    assert re.search(hook["files"], "runs/last.pt")
    assert main([*ours["entry"].split()[1:], *hook["args"], "runs/last.pt"]) == 1
