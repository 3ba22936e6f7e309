"""Every sample checkpoint gets the diagnosis that expected.json names, bare and with its data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.engine import Settings, examine, exit_code
from vqdoctor.engine.examine import examine_session
from vqdoctor.engine.retrain import plan_for, trainable
from vqdoctor.engine.session import Session

SAMPLES = Path(__file__).parents[2] / "sample_checkpoints"
DIGITS = SAMPLES / "digits.npz"
EXPECTED: dict[str, dict[str, Any]] = json.loads((SAMPLES / "expected.json").read_text())


def said(report: Report) -> dict[str, Any]:
    return {
        "verdict": report.verdict,
        "first": report.findings[0].code if report.findings else None,
        "exit": int(exit_code(report)),
    }


def test_expected_names_every_sample_and_nothing_else() -> None:
    assert {p.name for p in SAMPLES.glob("*.pt")} == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_bare(name: str) -> None:
    report = examine(SAMPLES / name)
    expected = EXPECTED[name]["bare"]
    assert said(report) == {key: expected[key] for key in ("verdict", "first", "exit")}
    usage = report.to_dict()["layers"][0]["usage"]
    assert (usage is None) == ("usage" in expected)
    if usage is None:
        reasons = [u.reason for u in report.unavailable if u.kind == "usage"]
        assert reasons and "not converged" in reasons[0]
    assert Report.from_dict(json.loads(report.to_json())) == report


@pytest.mark.parametrize("name", EXPECTED)
def test_with_data(name: str) -> None:
    report = examine(SAMPLES / name, data=SAMPLES / EXPECTED[name].get("data", "digits.npz"))
    expected = EXPECTED[name]["with_data"]
    assert said(report) == {key: expected[key] for key in ("verdict", "first", "exit")}
    assert set(expected.get("among", ())) <= {f.code for f in report.findings}
    assert not [o for o in report.outcomes if o.status == "crashed"]
    if expected["exit"]:  # a sick sample really breaks a named default limit
        worst = next(f for f in report.findings if f.severity is Severity.ERROR)
        assert worst.measurements[0].limit is not None
    else:
        assert report.findings == ()
    assert Report.from_dict(json.loads(report.to_json())) == report


def test_the_same_seed_gives_the_same_report() -> None:
    one, other = (examine(SAMPLES / "masked.pt", data=DIGITS).to_json() for _ in range(2))
    assert one == other


def test_the_data_report_is_whole() -> None:
    report = examine(SAMPLES / "healthy-256.pt", data=DIGITS, settings=Settings(histogram=True))
    data = report.to_dict()
    assert data["model"]["split"] == "val" and data["model"]["samples"] == 397
    assert data["model"]["accuracy"] >= 0.94 and data["model"]["ece"] < 0.05
    layer = data["layers"][0]
    assert set(layer["usage_by_source"]) == {"batch", "checkpoint"}
    assert layer["usage"] == layer["usage_by_source"]["batch"]
    assert layer["usage"]["vectors"] == 28752
    (usage,) = (e for e in data["evidence"] if (e["kind"], e["source"]) == ("usage", "batch"))
    histogram = usage["histogram"]
    assert len(histogram) == 256 and sum(histogram) == 28752
    (x,) = (e for e in data["evidence"] if e["kind"] == "input-summary")
    assert x["shape"] == [1797, 1, 8, 8] and (x["minimum"], x["maximum"]) == (0.0, 1.0)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_printed_plan_is_the_trained_plan(name: str) -> None:
    with Session.open(SAMPLES / name, training=True) as session:
        model = trainable(session)
        for report in (examine(SAMPLES / name), examine_session(session).report):
            plan = plan_for(report, model, Settings())
            printed = [(step.remedy, step.codes) for step in report.plan]
            assert printed == [(planned.remedy.name, planned.because) for planned in plan.remedies]
            left_out = [planned.remedy for planned in plan.remedies if planned.refused]
            assert all(remedy.plan is None or remedy.changes_model for remedy in left_out)
