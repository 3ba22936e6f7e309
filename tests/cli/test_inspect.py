"""`vqdoctor inspect` on real samples: codes, streams, formats and files."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import PATIENCE, python, start

from vqdoctor.cli import _output
from vqdoctor.cli.main import main
from vqdoctor.core.errors import UserError
from vqdoctor.core.report import Report

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_sick_sample_is_1_and_its_report_stands_alone_on_stdout(shell: Run, sick: Path) -> None:
    done = shell("inspect", sick)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("COLLAPSED: VQ101 straight-through-missing on vq")
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_healthy_sample_is_0(shell: Run, healthy: Path) -> None:
    assert shell("inspect", healthy).returncode == 0


def test_no_format_changes_the_exit_code_and_json_is_nothing_but_json(
    sick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("rich", "json", "markdown"):
        assert main(["inspect", str(sick), "-f", name]) == 1
        out, err = capsys.readouterr()
        assert err == ""
        if name == "json":
            assert Report.from_dict(json.loads(out)).verdict == "collapsed"


def test_fail_on_moves_the_bar(sick: Path, tmp_path: Path) -> None:
    assert main(["inspect", str(sick), "--fail-on", "never"]) == 0
    assert main(["inspect", str(sick), "--select", "VQ401", "--fail-on", "error"]) == 0
    (tmp_path / "pyproject.toml").write_text('[tool.vqdoctor]\nfail-on = "never"\n')
    assert main(["inspect", str(sick)]) == 0
    assert main(["inspect", str(sick), "--fail-on", "error"]) == 1


def test_select_ignore_and_limit_reach_the_checks(sick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def codes(*arguments: str) -> set[str]:
        main(["inspect", str(sick), "-f", "json", *arguments])
        return {o["code"] for o in json.loads(capsys.readouterr().out)["outcomes"] if o["status"] == "found"}

    assert {"VQ501", "VQ502"} <= codes()
    assert codes("--select", "VQ5", "--ignore", "vq502") == {"VQ501"}
    assert codes("--select", "VQ501,VQ502") == {"VQ501", "VQ502"}
    below = ("--limit", "VQ502.warn_below=0", "--limit", "VQ502.fail_below=0")
    assert codes("--select", "VQ502", *below) == set()


def test_several_reports_are_saved_in_one_run(sick: Path, tmp_path: Path) -> None:
    saves = [f"--save={name}={name}.out" for name in ("json", "markdown", "rich")]
    assert main(["inspect", str(sick), *saves]) == 1
    assert json.loads((tmp_path / "json.out").read_text())["verdict"] == "collapsed"
    assert (tmp_path / "markdown.out").read_text().startswith("### vqdoctor: COLLAPSED")
    assert (tmp_path / "rich.out").read_text().startswith("COLLAPSED")
    assert {p.name for p in tmp_path.iterdir()} == {"json.out", "markdown.out", "rich.out"}


def test_a_report_never_lands_on_an_input(
    sick: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, batch = tmp_path / "c.pt", tmp_path / "b.npz"
    checkpoint.write_bytes(sick.read_bytes())
    batch.write_bytes(b"x")
    (tmp_path / "soft").symlink_to(checkpoint)
    (tmp_path / "hard").hardlink_to(checkpoint)
    for target in ("c.pt", "./c.pt", "soft", "hard", "b.npz"):
        assert main(["inspect", "c.pt", "--data", "b.npz", "--save", f"json={target}"]) == 2
        assert "this is an input" in capsys.readouterr().err
    assert checkpoint.read_bytes() == sick.read_bytes()


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("no/such/folder.json", "there is no folder"),
        (".", "is not a regular file"),
        ("/dev/null", "is not a regular file"),
        ("file/x.json", "there is no folder"),
    ],
)
def test_a_target_that_cannot_be_is_told_first(
    target: str, says: str, sick: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["inspect", str(sick), "--save", f"json={target}"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and says in err


def test_two_reports_for_one_file(sick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(sick), "--save", "json=a", "--save", "markdown=./a"]) == 2
    assert "two reports for one file" in capsys.readouterr().err


def test_saving_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "old.json"
    target.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        _output.save("new", target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_saving_goes_through_a_link_and_obeys_the_umask(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    _output.save("new\n", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new\n"
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_reader_who_leaves_changes_nothing(environment: dict[str, str], sick: Path, tmp_path: Path) -> None:
    for arguments, code in ((["inspect", str(sick)], 1), (["--help"], 0), (["checks"], 0)):
        reader, writer = os.pipe()
        os.close(reader)
        done = python("-m", "vqdoctor", *arguments, stdout=writer, env=environment, cwd=tmp_path)
        os.close(writer)
        assert (done.returncode, done.stderr) == (code, "")


def test_a_full_disk_behind_stdout_is_2(environment: dict[str, str], sick: Path, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = python("-m", "vqdoctor", "inspect", sick, stdout=full, env=environment, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: standard output: No space left")


def test_ascii_where_stdout_is_not_utf8(shell: Run, sick: Path) -> None:
    for name in ("rich", "json", "markdown"):
        done = shell("inspect", sick, "-f", name, PYTHONIOENCODING="ascii")
        assert done.returncode == 1, done.stderr
        assert done.stdout.isascii()


@pytest.mark.parametrize(("variable", "coloured"), [("IGNORED", True), ("NO_COLOR", False)])
def test_colour_only_on_a_terminal_that_wants_it(
    environment: dict[str, str], sick: Path, tmp_path: Path, variable: str, coloured: bool
) -> None:
    controller, terminal = pty.openpty()
    env = {**environment, variable: "1", "TERM": "xterm"}
    child = start(
        "-m", "vqdoctor", "inspect", sick, stdout=terminal, stderr=subprocess.PIPE, cwd=tmp_path, env=env
    )
    os.close(terminal)
    seen = b""
    while chunk := _read(controller):
        seen += chunk
    _, complaints = child.communicate(timeout=PATIENCE)
    os.close(controller)
    assert (child.returncode, complaints) == (1, ""), "no progress where stderr is no terminal"
    assert b"COLLAPSED" in seen
    assert (b"\x1b[" in seen) is coloured


def _read(controller: int) -> bytes:
    try:
        return os.read(controller, 65_536)
    except OSError:  # Linux's way to say that the other side has closed
        return b""


@pytest.mark.parametrize("command", ["inspect", "gate", "fix"])
def test_verbose_lists_every_check_that_could_not_judge_by_code_and_name(
    command: str, sick: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {}
    for flag in ((), ("-v",), ("--verbose",)):
        dry = ("--dry-run",) if command == "fix" else ()
        main([command, str(sick), *dry, *flag])
        told[flag] = capsys.readouterr().out
    assert "VQ105 wrong-flatten" not in told[()] and "vqdoctor inspect -v lists all" in told[()]
    assert "VQ105 wrong-flatten" in " ".join(told["-v",].split()) and told["-v",] == told["--verbose",]
