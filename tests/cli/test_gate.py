"""`vqdoctor gate` as a shell runs it: its exit codes, on real samples and their data."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hostile_files import HOSTILE_FILES
from hostile_files import healthy as write_healthy

from vqdoctor.cli.main import main
from vqdoctor.core.report import Report

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SAMPLES = Path(__file__).parents[2] / "sample_checkpoints"
DIGITS = SAMPLES / "digits.npz"
FORMATS = ("rich", "json", "markdown", "junit", "sarif", "github", "gitlab")


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[str], Path]:
    """Write the bare report of a sample, and return where."""

    def write(sample: str) -> Path:
        path = tmp_path / f"{sample}.json"
        main(["inspect", str(SAMPLES / f"{sample}.pt"), "--save", f"json={path}"])
        return path

    return write


def test_0_1_2_and_3_in_a_process(shell: Run, healthy: Path, sick: Path) -> None:
    stalled = SAMPLES / "stalled-ema.pt"
    for arguments, code in (
        ((healthy,), 0),
        ((sick,), 1),
        (("nosuch.pt",), 2),
        ((stalled,), 3),
        ((stalled, sick), 1),
        ((healthy, stalled), 3),
    ):
        done = shell("gate", *arguments, "--min-perplexity", "50")
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert (done.stdout == "") == (code == 2)
        assert done.stderr.count("error: ") == (code == 2) and done.stderr.count("\n") <= 2 * (code == 2)


@pytest.mark.parametrize("arguments", [(), ("--min-perplexity", "50"), ("--min-perplexity", "0.2K")])
@pytest.mark.parametrize(
    ("sample", "code"),
    [
        ("healthy-256", 0), ("healthy-512", 0), ("no-ste", 1), ("overweighted", 1), ("dead-codes", 1),
        ("masked", 1), ("stalled-ema", 3),
    ],
)  # fmt: skip
def test_the_samples_bare(sample: str, code: int, arguments: tuple[str, ...]) -> None:
    assert main(["gate", str(SAMPLES / f"{sample}.pt"), *arguments]) == code


@pytest.mark.parametrize("flags", [(), ("--inconclusive", "pass"), ("--fail-on", "never")])
def test_counts_that_have_not_converged_never_pass(flags: tuple[str, ...]) -> None:
    assert main(["gate", str(SAMPLES / "stalled-ema.pt"), *flags]) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sample", "code"), [("healthy-256", 0), ("no-ste", 1), ("dead-codes", 1), ("stalled-ema", 1)]
)
def test_the_samples_with_their_data(sample: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--min-perplexity", "50", "--max-ece", "0.5"]
    command = ["gate", str(SAMPLES / f"{sample}.pt"), "--data", str(DIGITS), *arguments, "-f", "json"]
    assert main(command) == code
    report = Report.from_dict(json.loads(capsys.readouterr().out))
    assert report.gate and report.gate.status == ("fail" if code else "pass")


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--min-perplexity", "50", "--inconclusive", "pass")])
def test_eight_images_are_inconclusive(
    flags: tuple[str, ...], healthy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(DIGITS) as digits:
        np.savez(tmp_path / "eight.npz", **{name: array[:8] for name, array in digits.items()})
    assert main(["gate", str(healthy), "--data", "eight.npz", *flags, "-f", "json"]) == 3
    (judgement,) = json.loads(capsys.readouterr().out)["gate"]["judgements"]
    assert "more batches like this one make 16 per code" in judgement["reason"]


@pytest.mark.parametrize("format", FORMATS)
def test_no_format_changes_the_code(format: str, saved: Callable[[str], Path]) -> None:
    for sample, code in (("healthy-256", 0), ("no-ste", 1), ("stalled-ema", 3)):
        assert main(["gate", str(saved(sample)), "-f", format]) == code


def test_a_saved_report_gives_what_its_checkpoint_gives(
    saved: Callable[[str], Path], healthy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gates = []
    for path in (healthy, saved("healthy-256")):
        capsys.readouterr()
        assert main(["gate", str(path), "--min-usage", "0.4", "--max-dead", "10%", "-f", "json"]) == 0
        gates.append(json.loads(capsys.readouterr().out)["gate"])
    assert gates[0] == gates[1]
    assert [j["metric"] for j in gates[0]["judgements"]] == ["usage", "dead"]


@pytest.mark.parametrize("flag", ["--layer", "--codebook-key", "--layout"])
def test_a_flag_that_a_saved_report_would_ignore_is_2(
    flag: str, saved: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    report = str(saved("healthy-256"))
    capsys.readouterr()
    assert main(["gate", report, flag, "kd"]) == 2
    assert f"is a saved report, and {flag} is for checkpoints" in capsys.readouterr().err


def test_several_files_are_one_json(saved: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    saved("healthy-256"), saved("no-ste")
    capsys.readouterr()
    assert main(["gate", "*.json", "-f", "json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert (data["schema"], data["gate"]["status"]) == (1, "fail")
    assert [report["gate"]["status"] for report in data["reports"]] == ["pass", "fail"]


def test_the_median_of_three_seeds(saved: Callable[[str], Path]) -> None:
    saved("healthy-256"), saved("healthy-512"), saved("no-ste")
    told = ["gate", "*.json", "--min-perplexity", "100"]
    assert main(told) == 1
    assert main([*told, "--aggregate", "worst"]) == 1
    assert main([*told, "--aggregate", "median"]) == 0


def test_a_baseline(saved: Callable[[str], Path], healthy: Path, sick: Path) -> None:
    main_report = str(saved("healthy-256"))
    assert main(["gate", str(healthy), "--baseline", main_report, "--max-drop", "5%"]) == 0
    assert main(["gate", str(sick), "--baseline", main_report, "--fail-on", "never"]) == 1
    assert main(["gate", str(healthy), "--baseline", main_report, "--max-drop", "0"]) == 3


def test_what_is_known_is_hidden(saved: Callable[[str], Path], sick: Path) -> None:
    assert main(["gate", str(sick), "--hide-known", str(saved("no-ste"))]) == 0
    assert main(["gate", str(sick), "--hide-known", str(saved("healthy-256"))]) == 1


def test_settings_of_pyproject(tmp_path: Path, healthy: Path) -> None:
    write = (tmp_path / "pyproject.toml").write_text
    write('[tool.vqdoctor.gate]\nmin-perplexity = "0.95K"\n')
    assert main(["gate", str(healthy)]) == 1
    assert main(["gate", str(healthy), "--min-perplexity", "50"]) == 0
    write('[tool.vqdoctor.gate]\nmin-perplexity = { value = "0.95K", level = "warn" }\n')
    assert main(["gate", str(healthy)]) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("", "Missing argument"),
        ("*.ckpt", "*.ckpt: the pattern matches nothing"),
        ("x.json", "x.json: No such file"),
        ("x.pt --min-perplexity 5%", "--min-perplexity: 5% is not a number of codes"),
        ("x.pt --min-usage 40", "--min-usage: 40 is out of range\nhelp: write a share, such as 0.4 or 40%"),
        ("x.pt --require perplexty>=2", "did you mean perplexity?"),
        ("x.pt --max-drop 5%", "--max-drop needs --baseline"),
        ("x.pt --baseline nosuch.json", "nosuch.json"),
        ("x.pt --aggregate mean", "'mean' is none of median, worst"),
        ("x.pt --inconclusive skip", "'skip' is none of pass, fail"),
        ("x.pt --save json=x.pt", "this is an input"),
        ("HEALTHY --require usage>=0.1@rvq.0", "there is no VQ layer rvq.0\nhelp: known: vq"),
        ("HEALTHY --layer nope", "nope"),
    ],
)
def test_a_user_error_is_an_error_and_a_help_and_2(
    arguments: str, says: str, healthy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("x.pt").write_bytes(healthy.read_bytes())
    assert main(["gate", *arguments.replace("HEALTHY", str(healthy)).split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    error, *help = err.splitlines()
    assert error.startswith("error: ") and says in err
    assert len(help) <= 1 and all(line.startswith("help: ") for line in help)


@pytest.mark.parametrize("name", HOSTILE_FILES)
def test_no_hostile_file_passes(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = HOSTILE_FILES[name]
    path = tmp_path / f"odd{hostile.suffix}"
    hostile.build(path)
    for flags in ((), ("--inconclusive", "pass", "--fail-on", "never", "--min-accuracy", "0")):
        code = main(["gate", str(path), *flags])
        out = capsys.readouterr().out
        assert (code == 2) == (hostile.exit_code == 2) == (out == "")
        assert code != 0 or hostile.exit_code == 0


def test_an_unreadable_file_among_good_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_healthy(tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(b"PK\x03\x04")
    assert main(["gate", "*.pt", "-f", "json", "--inconclusive", "pass"]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: b.pt: ") and err.count("error: ") == 1 and err.count("\n") == 2
    data = json.loads(out)
    assert data["gate"]["status"] == "fail"
    assert data["reports"][1]["gate"]["judgements"][0]["metric"] == "readable"
