"""Where reports go: every format to standard output and to files at once, and a CI system's summary."""

from __future__ import annotations

import io
import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from junit2htmlreport.parser import Junit
from many_findings import many
from sarif.loader import load_sarif_file
from sarif_kit.validate import validation_errors

from vqdoctor.cli import _output, _retrain
from vqdoctor.cli.main import main
from vqdoctor.core.retraining import Epoch
from vqdoctor.render import RenderOptions, format_names, renderer_of

Run = Callable[..., "subprocess.CompletedProcess[str]"]

AMBIENT = ("GITHUB_STEP_SUMMARY", *_output.WORKSPACES)


@pytest.fixture(autouse=True)
def _no_ci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in AMBIENT:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("format", format_names())
@pytest.mark.parametrize(("bar", "code"), [("error", 1), ("never", 0)])
def test_no_format_changes_the_exit_code(
    format: str, bar: str, code: int, sick: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(sick), "--fail-on", bar, "-f", format, "--save", f"{format}=x"]) == code
    out, err = capsys.readouterr()
    assert err == ""
    assert out and (tmp_path / "x").read_text()


@pytest.mark.parametrize("format", format_names())
def test_no_format_turns_an_inconclusive_file_into_a_pass(format: str, sick: Path) -> None:
    stalled = sick.with_name("stalled-ema.pt")
    assert main(["inspect", str(stalled), "--select", "VQ902", "-f", format]) == 3


@pytest.mark.parametrize("format", format_names())
@pytest.mark.parametrize(
    ("sample", "code"), [("healthy-256.pt", 0), ("no-ste.pt", 1), ("none.pt", 2), ("stalled-ema.pt", 3)]
)
def test_no_format_changes_what_a_gate_says(format: str, sample: str, code: int, sick: Path) -> None:
    judged = ["gate", str(sick.with_name(sample)), "--min-perplexity", "50", "--fail-on", "never"]
    assert main([*judged, "-f", format]) == code


def test_a_gate_over_all_samples_reads_back_with_independent_readers(sick: Path, tmp_path: Path) -> None:
    samples = sorted(sick.parent.glob("*.pt"))
    broken = tmp_path / "broken.pt"
    broken.write_bytes(sick.read_bytes()[:2_000])
    saves = ["--save=junit=b.xml", "--save=sarif=a.sarif", "--save=json=r.json"]
    assert main(["gate", *map(str, samples), str(broken), "--min-perplexity", "50", *saves]) == 2
    reports = json.loads((tmp_path / "r.json").read_text())["reports"]
    status = {Path(r["checkpoint"]["path"]).name: r["gate"]["status"] for r in reports}
    assert len(status) == len(samples) + 1
    assert status["broken.pt"] != "pass"

    suites = Junit(xmlstring=(tmp_path / "b.xml").read_text()).suites
    green = {Path(suite.name).name for suite in suites if not suite.failed()}
    assert green == {name for name, said in status.items() if said == "pass"}

    sarif = json.loads((tmp_path / "a.sarif").read_text())
    assert validation_errors(sarif) == []
    told = {(record["Location"].rpartition("/")[2], record["Code"]) for record in _records(tmp_path)}
    for report in reports:
        name = Path(report["checkpoint"]["path"]).name
        assert {(name, finding["code"]) for finding in report["findings"]} <= told
        undecided = [j["metric"] for j in report["gate"]["judgements"] if j["status"] != "pass"]
        assert {(name, f"gate/{metric}") for metric in undecided} <= told


def _records(folder: Path) -> list[dict[str, Any]]:
    return load_sarif_file(str(folder / "a.sarif")).get_records()


def test_several_formats_at_once_each_as_it_should_be(sick: Path, tmp_path: Path) -> None:
    saves = [f"--save={name}={name}.out" for name in format_names()]
    assert main(["inspect", str(sick), *saves]) == 1
    read = {name: (tmp_path / f"{name}.out").read_text() for name in format_names()}
    assert json.loads(read["sarif"])["runs"][0]["results"][0]["ruleId"] == "VQ101"
    assert "## Why it matters" in read["sarif"], "the page of the check came along"
    assert {issue["check_name"] for issue in json.loads(read["gitlab"])} >= {"VQ101", "VQ501"}
    assert ElementTree.fromstring(read["junit"]).attrib["failures"] != "0"
    assert read["github"].startswith("::error file=")


def test_the_bar_reaches_the_formats(sick: Path, tmp_path: Path) -> None:
    for bar, failures in (("error", True), ("never", False)):
        main(["inspect", str(sick), "--fail-on", bar, "--save", "junit=b.xml"])
        root = ElementTree.fromstring((tmp_path / "b.xml").read_text())
        assert (root.attrib["failures"] != "0") is failures


def test_help_names_every_format(shell: Run) -> None:
    text = " ".join(shell("inspect", "--help").stdout.split())
    assert ", ".join(format_names()) in text


def test_github_gets_the_whole_report_as_its_summary(
    sick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("# Before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert main(["inspect", str(sick), "-f", "rich"]) == 1
    assert summary.read_text() == "# Before\n", "only the format for GitHub writes there"
    assert main(["inspect", str(sick), "-f", "github"]) == 1
    text = summary.read_text()
    assert text.startswith("# Before\n### vqdoctor: COLLAPSED") and "VQ502" in text


def test_a_summary_that_cannot_be_written_is_told_and_changes_nothing(
    sick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "no" / "summary.md"))
    assert main(["inspect", str(sick), "-f", "github"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("::error")
    assert err.startswith("warning: the summary") and err.count("\n") == 1


def test_a_summary_stays_within_its_limit_and_ends_at_a_line(tmp_path: Path) -> None:
    file = tmp_path / "summary.md"
    _output.append("é" * 10 + "\n", file, 200)
    _output.append("line é\n" * 100, file, 200)
    data = file.read_bytes()
    assert len(data) <= 200
    lines = data.decode().splitlines()
    assert lines[0] == "é" * 10 and set(lines[1:-2]) == {"line é"}
    assert lines[-1].startswith("Cut off here")
    _output.append("more\n" * 100, file, 200)
    assert file.read_bytes() == data, "a full file is left as it is"


def test_300_findings_fit_into_the_summary() -> None:
    text = renderer_of("markdown").render(many(300), RenderOptions())
    assert len(text.encode()) < _output.SUMMARY_LIMIT < 1 << 20


@pytest.mark.parametrize("variable", _output.WORKSPACES)
def test_files_are_named_from_the_root_of_the_repository(
    variable: str, sick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "repo" / "sub"
    folder.mkdir(parents=True)
    (folder / "a b.pt").write_bytes(sick.read_bytes())
    monkeypatch.chdir(folder)

    def path() -> str:
        main(["inspect", "a b.pt", "--save", "gitlab=q.json"])
        return json.loads((folder / "q.json").read_text())[0]["location"]["path"]

    assert path() == "a b.pt", "without a repository it is as it was named"
    (tmp_path / "repo" / ".git").mkdir()
    assert path() == "sub/a b.pt"
    monkeypatch.setenv(variable, str(tmp_path))
    assert path() == "repo/sub/a b.pt"
    monkeypatch.setenv(variable, "/somewhere/else")
    assert path() == "sub/a b.pt"


def test_the_spinner_moves_and_names_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    with _output.progress() as say:
        assert say is not None
        say("running the val split: batch 7")
        time.sleep(0.6)
    plain = re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", shown.getvalue())
    frames = re.findall(r"(\S) running the val split: batch 7", plain)
    assert len(set(frames)) > 1


def test_a_retraining_in_a_log_file_is_a_line_every_half_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter([0.0, 1.0, 29.0, 31.0, 31.0, 50.0, 62.0, 62.0])
    monkeypatch.setattr(_retrain.time, "monotonic", lambda: next(now))
    lines = _retrain._Lines()
    for number in range(1, 6):
        row = Epoch(epoch=number, task_loss=1 / number, vq_loss=None, vq_weight=0.1, revived=0, stop=None)
        lines.epoch("retraining", row, 50)
    assert capsys.readouterr().err.splitlines() == [
        "retraining: epoch 3 of 50, task loss 0.3333",
        "retraining: epoch 5 of 50, task loss 0.2",
    ]


def test_a_patch_names_its_file_as_git_does_and_keeps_the_files_encoding(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    _output.write("--- a/ł.py\n+++ b/ł.py\n@@ -1 +1 @@\n-é\n", "latin-1")
    head = "--- a/ł.py\n+++ b/ł.py\n".encode()
    assert capfdbinary.readouterr().out == head + b"@@ -1 +1 @@\n-\xe9\n"
