"""A trace beside a checkpoint: its course is judged, in `inspect` and in `gate`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vqdoctor.cli.main import main
from vqdoctor.core.trace import SCHEMA, Interval, Start, TracedLayer
from vqdoctor.saved.trace import TraceWriter

SAMPLE = Path(__file__).parents[2] / "sample_checkpoints" / "healthy-256.pt"


def traced(folder: Path, layer: str = "vq", end: float = 60.0) -> Path:
    """Write a trace whose perplexity goes from 200 in a line to the end."""
    file = folder / "run.vqtrace.jsonl"
    layers = (TracedLayer(name=layer, num_codes=256, dim=64),)
    writer = TraceWriter(file, Start(step=0, schema=SCHEMA, version="0", every=100, layers=layers))
    for i in range(20):
        perplexity = 200 + (end - 200) * i / 19
        writer.add(Interval(step=100 * i, layer=layer, vectors=3200, perplexity=perplexity, active=250))
    return file


def test_inspect_finds_the_fall(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["inspect", str(SAMPLE), "--trace", str(traced(tmp_path)), "-f", "json"])
    report = json.loads(capsys.readouterr().out)
    assert code == 0 and [f["code"] for f in report["findings"]] == ["VQ521"]
    assert report["verdict"] == "at-risk"
    assert any(item["kind"] == "course" and len(item["steps"]) == 20 for item in report["evidence"])


@pytest.mark.parametrize(("end", "code"), [(60.0, 1), (199.0, 0)])
def test_a_gate_judges_with_it(tmp_path: Path, end: float, code: int) -> None:
    trace = traced(tmp_path, end=end)
    assert main(["gate", str(SAMPLE), "--trace", str(trace), "--fail-on", "warning"]) == code


def test_a_trace_of_another_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(SAMPLE), "--trace", str(traced(tmp_path, "rvq.0"))]) == 2
    assert "rvq.0" in capsys.readouterr().err


def test_a_file_that_is_not_a_trace_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(SAMPLE), "--trace", str(SAMPLE)]) == 2
    assert "not" in capsys.readouterr().err


def test_a_saved_report_takes_no_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "report.json"
    main(["inspect", str(SAMPLE), "--save", f"json={saved}"])
    assert main(["gate", str(saved), "--trace", str(traced(tmp_path))]) == 2
    assert "--trace" in capsys.readouterr().err
