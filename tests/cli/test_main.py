"""Every way to end: its exit code, one clear line with the error, and one with the help."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import vqdoctor
import vqdoctor.engine
from vqdoctor.cli.main import main
from vqdoctor.core.errors import UserError


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VQDOCTOR_TRACEBACK", raising=False)


def only_error(captured: pytest.CaptureFixture[str]) -> str:
    """Return what was said: the error on one line and, where there is any, the help on another."""
    out, err = captured.readouterr()
    assert out == ""
    error, *help = err.splitlines()
    assert error.startswith("error: ") and len(help) <= 1
    assert all(line.startswith("help: ") for line in help)
    return err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("", "no command"),
        ("inspct x.pt", "error: there is no command 'inspct'\nhelp: did you mean inspect?"),
        ("qqqq", "the commands are inspect, fix, gate, compare, ablate, watch, init, explain, checks"),
        ("inspect", "error: Missing argument 'CKPT'\nhelp: `vqdoctor inspect --help` shows the options"),
        ("inspect --formatt json x.pt", "there is no option --formatt\nhelp: did you mean --format? `vqdoc"),
        ("--versoin", "did you mean --version? `vqdoctor --help`"),
        ("inspect x.pt y.pt", "y.pt"),
        ("inspect x.pt --seed a", "--seed"),
        ("inspect x.pt --seed -1", "--seed: -1 is not a seed"),
        ("inspect nosuch.pt", "nosuch.pt"),
        ("inspect x.pt -f jsn", "did you mean json?"),
        ("inspect x.pt --layout xy", "none of kd, dk"),
        ("inspect x.pt --fail-on note", "none of error, warning, never"),
        ("inspect x.pt --device tpu", "none of auto, cpu, cuda, mps"),
        ("inspect x.pt --select VQ5,VQ1011", "there is no check VQ1011\nhelp: did you mean VQ101"),
        ("inspect x.pt --ignore VQ5022", "there is no check VQ5022\nhelp: did you mean VQ502"),
        ("inspect x.pt --select ,", "--select: an empty code"),
        ("inspect x.pt --limit VQ999.a=1", "there is no check VQ999"),
        ("inspect x.pt --limit VQ502.nope=1", "VQ502 has no limit 'nope'\nhelp: known: "),
        ("inspect x.pt --limit VQ502.fail_belw=1", "help: did you mean fail_below?"),
        ("inspect x.pt --limit VQ502.fail_below", "not of the form CODE.name=value"),
        ("inspect x.pt --save json", "not of the form FORMAT=FILE"),
        ("inspect x.pt --save jsn=a.json", "did you mean json?"),
        ("explain VQ1O1", "did you mean VQ101"),
        ("explain dead-code", "did you mean dead-codes"),
        ("explain qqqq", "`vqdoctor checks` lists all"),
        ("checks -f xml", "known: json, text"),
    ],
)
def test_a_user_error_is_an_error_and_a_help_and_2(
    arguments: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 2
    assert says in only_error(capsys)


@pytest.mark.parametrize("command", ["inspect", "fix", "gate", "compare", "watch"])
def test_a_name_that_the_system_refuses_is_a_user_error(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "x" * 300]) == 2
    assert "File name too long" in only_error(capsys)


def test_a_wrong_pyproject_is_a_user_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.vqdoctor]\nselekt = []\n")
    assert main(["inspect", "x.pt"]) == 2
    assert "did you mean select? known: " in only_error(capsys)


def test_options_are_judged_before_the_file_is_opened(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(vqdoctor.engine, "examine", lambda *a, **k: pytest.fail("too early"))
    assert main(["inspect", "x.pt", "--save", "json=nosuch/a.json"]) == 2
    assert "there is no folder" in only_error(capsys)


def test_control_characters_of_a_name_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "\x1b[2Jx\n.pt"]) == 2
    assert r"\x1b[2Jx\n.pt" in only_error(capsys)


def raising(error: BaseException) -> object:
    """Return an `examine` that raises, from a line of the package: elsewhere it would be the user's."""
    named: dict[str, object] = {"error": error}
    body = "def examine(*_, **__):\n    raise error\n"
    exec(compile(body, vqdoctor.engine.__file__, "exec"), named)
    return named["examine"]


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (UserError("x.pt: cut", "fetch it again"), 2, r"error: x\.pt: cut\nhelp: fetch it again"),
        (KeyError("k\x1b"), 3, r"vqdoctor has a bug: KeyError: .*\\x1b.*\n.*VQDOCTOR_TRACEBACK=1"),
        (
            PermissionError(13, "Permission denied", "a/x.pt"),
            2,
            r"error: a/x\.pt: Permission denied\nhelp: ls -ld a a/x\.pt shows",
        ),
        (FileNotFoundError(2, "No such file or directory", "ours"), 3, "vqdoctor has a bug: FileNotFound"),
        (PermissionError(13, "Permission denied", 3), 3, "vqdoctor has a bug: PermissionError"),
        (MemoryError(), 3, "vqdoctor has a bug: MemoryError"),
        (RecursionError("deep"), 3, "vqdoctor has a bug: RecursionError: deep"),
    ],
)
def test_an_exception_becomes_a_code_and_a_line(
    error: Exception,
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(vqdoctor.engine, "examine", raising(error))
    assert main(["inspect", "x.pt"]) == code
    assert re.search(says, only_error(capsys))


def test_a_traceback_comes_only_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(vqdoctor.engine, "examine", raising(ValueError("v")))
    monkeypatch.setenv("VQDOCTOR_TRACEBACK", "1")
    assert main(["inspect", "x.pt"]) == 3
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_ctrl_c_is_130_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(vqdoctor.engine, "examine", raising(KeyboardInterrupt()))
    assert main(["inspect", "x.pt"]) == 130
    assert capsys.readouterr() == ("", "")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vqdoctor {vqdoctor.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["inspect", "--help"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert "Usage: vqdoctor" in capsys.readouterr().out
