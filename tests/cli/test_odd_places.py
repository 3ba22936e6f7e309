"""The command line in odd places: CI runners, pipes, a folder that is gone, Ctrl-C at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hostile_files import codebook_state
from processes import PATIENCE, python, start

from vqdoctor.cli._output import without_commands
from vqdoctor.cli.main import main
from vqdoctor.render import format_names

Run = Callable[..., "subprocess.CompletedProcess[str]"]

EVIL = "::set-env name=A::b ##[command]evil ##vso[task.x]"


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A checkpoint whose names are commands to a CI runner."""
    state = codebook_state()
    state["vq.embedding"][3, 5] = float("nan")
    path = tmp_path / "evil.pt"
    torch.save({f"{EVIL}.{key}": value for key, value in state.items()}, path)
    return path


@pytest.mark.parametrize("format", format_names())
def test_no_line_of_a_report_is_a_command_to_the_runner(
    format: str, evil: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    main(["inspect", str(evil), "-f", format])
    out, err = capsys.readouterr()
    for line in (out + err).splitlines():
        assert "##[" not in line and "##vso[" not in line
        if line.lstrip().startswith("::"):
            assert format == "github" and line.partition(" ")[0] in ("::error", "::warning", "::notice")


@pytest.mark.parametrize("format", ["json", "sarif", "gitlab"])
def test_json_means_the_same_in_ci(
    format: str, evil: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["inspect", str(evil), "-f", format])
    plain = json.loads(capsys.readouterr().out)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    main(["inspect", str(evil), "-f", format])
    assert json.loads(capsys.readouterr().out) == plain


def test_xml_and_text_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "<a>\n ::error::x ##[group]</a>"
    assert without_commands(text, "junit") == text
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    read = ET.fromstring(without_commands(text, "junit"))
    assert read.text == "\n ::error::x ##[group]" and "::" not in without_commands(text, "junit")[:9]
    assert without_commands("::a\n  ::b ##[c]", "rich") == ": :a\n  : :b # #[c]"


def test_a_working_directory_that_is_gone(tmp_path: Path, environment: dict[str, str]) -> None:
    code = f"""
import os, sys
os.chdir({str(tmp_path)!r}); os.mkdir("gone"); os.chdir("gone"); os.rmdir("../gone")
from vqdoctor.__main__ import start
sys.argv = ["vqdoctor", "inspect", "x.pt"]
start()
"""
    done = python("-c", code, env=environment)
    assert done.returncode == 2 and "the working directory is gone" in done.stderr


def test_a_summary_that_is_a_pipe(sick: Path, tmp_path: Path, shell: Run) -> None:
    os.mkfifo(tmp_path / "summary")
    done = shell("inspect", sick, "-f", "github", GITHUB_STEP_SUMMARY=str(tmp_path / "summary"))
    assert done.returncode == 1 and "not a regular file" in done.stderr


def test_markdown_on_an_ascii_terminal(sick: Path, shell: Run) -> None:
    done = shell("inspect", sick, "-f", "markdown", PYTHONIOENCODING="ascii")
    assert done.returncode == 1 and done.stdout.isascii() and "VQ101" in done.stdout


def test_ctrl_c_while_it_is_imported(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "typer.py").write_text("import sys, time\nprint('now', flush=True)\ntime.sleep(600)\n")
    env = environment | {"PYTHONPATH": os.pathsep.join((str(tmp_path), environment["PYTHONPATH"]))}
    running = start("-m", "vqdoctor", "--help", env=env, stderr=subprocess.PIPE)
    assert running.stdout is not None and running.stderr is not None
    assert running.stdout.readline() == "now\n"
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130 and err == ""


def test_a_report_names_the_pyproject_that_decided(
    sick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.vqdoctor]\nfail-on = "never"\nignore = ["VQ5"]\n')
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", str(sick), "-f", "json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert f"the settings fail-on, ignore of {tmp_path / 'pyproject.toml'} decided" in notes
