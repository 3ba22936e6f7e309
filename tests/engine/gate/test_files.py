"""What is named becomes files: patterns, run folders, saved reports, and files that cannot be read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from gate_reports import a_crash, a_finding, a_report, a_usage

from vqdoctor.core.assertion import GateRules, parse_assertion
from vqdoctor.core.errors import CheckpointError, UserError
from vqdoctor.core.exit_codes import ExitCode
from vqdoctor.core.report import Report
from vqdoctor.engine import Settings
from vqdoctor.engine.gate import Policy, Source, expand, judge_all, load_reports

ABOVE = Policy(rules=GateRules(assertions=(parse_assertion("perplexity>=100", "--require"),)))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def touch(name: str, seconds: int = 0) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    os.utime(path, (1e9 + seconds, 1e9 + seconds))
    return path


def save(name: str, report: Report) -> Path:
    path = Path(name)
    path.write_text(report.to_json())
    return path


def test_patterns_are_expanded_in_natural_order_and_named_once() -> None:
    for name in ("runs/s10/a.pt", "runs/s9/a.pt", "runs/s9/b.txt"):
        touch(name)
    assert expand(["runs/*/*.pt"]) == (Path("runs/s9/a.pt"), Path("runs/s10/a.pt"))
    assert expand(["runs/**/a.pt", "runs/s9/a.pt", "./runs/s9/a.pt"]) == expand(["runs/*/*.pt"])


def test_a_name_that_exists_is_no_pattern() -> None:
    touch("run[1].pt")
    assert expand(["run[1].pt"]) == (Path("run[1].pt"),)
    assert expand(["nosuch.pt"]) == (Path("nosuch.pt"),)


def test_an_empty_name_is_an_unset_variable_and_never_the_newest_file_here() -> None:
    touch("a.pt")
    for name in ("", " "):
        with pytest.raises(UserError, match="an empty path was given"):
            expand([name])
    assert expand(["."]) == (Path("a.pt"),)


def test_a_link_whose_file_is_gone_is_not_the_newest() -> None:
    touch("run/a.pt")
    Path("run/last.ckpt").symlink_to("gone.pt")
    assert expand(["run"]) == (Path("run/a.pt"),)


def test_a_report_that_windows_wrote_and_a_checkpoint_in_its_place() -> None:
    text = a_report(a_usage(180)).to_json()
    Path("bom.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert len(load_reports(Path("bom.json"))) == 1
    Path("a.pt").write_bytes(b"PK\x03\x04\x80\x81")
    with pytest.raises(CheckpointError, match=r"a\.pt: not a saved report: it is not text: vqdoctor inspect"):
        load_reports(Path("a.pt"))


def test_a_pattern_without_a_match_is_the_users_error() -> None:
    with pytest.raises(UserError, match=r"runs/\*\.pt: the pattern matches nothing"):
        expand(["runs/*.pt"])


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        ({"run/old.pt": 1, "run/new.ckpt": 2, "run/log.txt": 3}, "run/new.ckpt"),
        ({"run/epoch-10.pt": 1, "run/epoch-9.pt": 2}, "run/epoch-10.pt"),
        ({"run/epoch=3-step=40.ckpt": 1, "run/last.ckpt": 0}, "run/epoch=3-step=40.ckpt"),
        (
            {"run/checkpoint-500/model.safetensors": 9, "run/checkpoint-1000/model.safetensors": 1},
            "run/checkpoint-1000/model.safetensors",
        ),
        (
            {"run/model.safetensors": 1, "run/optimizer.pt": 5, "run/x.pt": 6},
            "run/model.safetensors",
        ),
        ({"run/a.pt": 1, "run/optimizer.pt": 5, "run/.hidden/b.pt": 9}, "run/a.pt"),
        ({"run/lightning_logs/version_0/checkpoints/e.ckpt": 1}, None),
    ],
)
def test_a_folder_is_its_newest_checkpoint(files: dict[str, int], chosen: str | None) -> None:
    for name, seconds in files.items():
        touch(name, seconds)
    assert expand(["run"]) == (Path(chosen or next(iter(files))),)


def test_a_folder_without_a_checkpoint_stays_and_is_the_users_error() -> None:
    touch("run/log.txt")
    assert expand(["run"]) == (Path("run"),)
    with pytest.raises(CheckpointError, match="a folder without a checkpoint"):
        judge_all(Source(paths=expand(["run"])), ABOVE)


def test_saved_reports_are_judged_alone_and_together() -> None:
    good, bad = save("good.json", a_report(a_usage(180))), save("bad.json", a_report(a_usage(20)))
    assert judge_all(Source(paths=(good,)), ABOVE).exit_code is ExitCode.OK
    both = judge_all(Source(paths=(good, bad)), ABOVE)
    assert [report.gate and report.gate.status for report in both.reports] == ["pass", "fail"]
    assert both.exit_code is ExitCode.FINDINGS
    several = {"schema": 1, "gate": None, "reports": [json.loads(p.read_text()) for p in (good, bad)]}
    Path("both.json").write_text(json.dumps(several))
    again = judge_all(Source(paths=(Path("both.json"),)), ABOVE)
    assert [r.gate for r in again.reports] == [r.gate for r in both.reports]


def test_a_proven_failure_beside_an_inconclusive_file_is_1_and_alone_3() -> None:
    empty, bad = save("empty.json", a_report(layers=())), save("bad.json", a_report(a_usage(20)))
    assert judge_all(Source(paths=(empty,)), ABOVE).exit_code is ExitCode.INCOMPLETE
    assert judge_all(Source(paths=(empty, bad)), ABOVE).exit_code is ExitCode.FINDINGS


def test_a_crash_comes_before_a_failure_as_in_every_command() -> None:
    bad = save("bad.json", a_report(a_usage(20)))
    crashed = save("crashed.json", a_report(a_usage(20), outcomes=(a_crash(),)))
    for paths in ((crashed,), (bad, crashed)):
        assert judge_all(Source(paths=paths), ABOVE).exit_code is ExitCode.INCOMPLETE


def test_an_unreadable_file_among_others_is_2_and_never_looks_passed() -> None:
    good = save("good.json", a_report(a_usage(180)))
    Path("broken.pt").write_bytes(b"PK\x03\x04 not really")
    judged = judge_all(Source(paths=(good, Path("broken.pt"), Path("nosuch.pt"))), ABOVE)
    assert judged.exit_code is ExitCode.USER_ERROR
    assert [error.path for error in judged.errors] == ["broken.pt", "nosuch.pt"]
    assert [r.gate.status for r in judged.reports if r.gate] == ["pass", "fail", "fail"]
    stub = judged.reports[2]
    assert stub.gate and "no such file" in stub.gate.judgements[0].reason
    Path("stub.json").write_text(stub.to_json())
    assert judge_all(Source(paths=(Path("stub.json"),)), ABOVE).exit_code is ExitCode.INCOMPLETE


def test_a_broken_batch_is_not_blamed_on_the_files() -> None:
    for name in ("a.pt", "b.pt"):
        touch(name)
    Path("batch.npz").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"batch\.npz"):
        judge_all(Source(paths=(Path("a.pt"), Path("b.pt")), data=(Path("batch.npz"),)), ABOVE)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no valid JSON"),
        ("{", "no valid JSON"),
        ("[" * 100_000, "no valid JSON"),
        ("[]", "no vqdoctor report"),
        ('{"weight_map": {}}', "no vqdoctor report"),
        ('{"schema": 9}', "schema 9 is not a report that this version reads"),
        ('{"schema": 1}', "the report is damaged"),
        ('{"schema": 1, "reports": []}', "holds no report"),
        ('{"schema": 1, "reports": [3]}', "holds no report"),
        ('{"schema": 1, "layers": [3]}', "the report is damaged"),
    ],
)
def test_a_file_that_is_no_report_is_the_users_error(text: str, says: str) -> None:
    Path("r.json").write_text(text)
    with pytest.raises(CheckpointError, match=says):
        load_reports(Path("r.json"))


@pytest.mark.parametrize("value", ['"180"', "null", "[180]", "NaN", "Infinity", "1e400"])
@pytest.mark.parametrize("name", ["perplexity", "perplexity_low", "perplexity_high", "effective_size"])
def test_a_report_with_a_value_that_cannot_be_never_passes(name: str, value: str) -> None:
    data = json.loads(a_report(a_usage(180)).to_json())
    data["evidence"][0][name] = "HERE"
    Path("r.json").write_text(json.dumps(data).replace('"HERE"', value))
    try:
        code = judge_all(Source(paths=(Path("r.json"),)), ABOVE).exit_code
    except UserError:
        code = ExitCode.USER_ERROR
    assert code in (ExitCode.USER_ERROR, ExitCode.INCOMPLETE)


def test_a_saved_report_is_judged_again_by_other_limits() -> None:
    path = save("r.json", a_report(a_usage(180, active=240), findings=(a_finding("VQ101"),)))
    assert judge_all(Source(paths=(path,)), ABOVE).exit_code is ExitCode.FINDINGS
    ignoring = Source(paths=(path,), settings=Settings(ignore=("VQ1",)))
    assert judge_all(ignoring, ABOVE).exit_code is ExitCode.OK
    strict = Settings(limits={"VQ502": {"warn_below": 0.99, "fail_below": 0.98}}, select=("VQ502",))
    assert judge_all(Source(paths=(path,), settings=strict), ABOVE).exit_code is ExitCode.FINDINGS


def test_data_beside_a_saved_report_is_the_users_error() -> None:
    path = save("r.json", a_report(a_usage(180)))
    with pytest.raises(UserError, match="is a saved report"):
        judge_all(Source(paths=(path,), data=(Path("batch.npz"),)), ABOVE)


def test_several_processes_read_the_same_as_one() -> None:
    """Reports, their order and the errors of unreadable files are those of one process."""
    samples = Path(__file__).parents[3] / "sample_checkpoints"
    broken = Path("broken.pt")
    broken.write_bytes(b"PK\x03\x04 and no more")
    paths = (samples / "no-ste.pt", broken, samples / "healthy-256.pt")
    one, two = (judge_all(Source(paths=paths, settings=Settings(jobs=jobs)), Policy()) for jobs in (1, 2))
    assert two.reports == one.reports
    assert [str(error) for error in two.errors] == [str(error) for error in one.errors] != []
    assert two.exit_code == one.exit_code == ExitCode.USER_ERROR
