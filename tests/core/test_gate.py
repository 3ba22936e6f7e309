"""What a gate decided travels with its report, and its names hold across runs."""

from __future__ import annotations

import json

import pytest

from vqdoctor.core.codec import encode
from vqdoctor.core.errors import UserError
from vqdoctor.core.gate import Gate, Judgement
from vqdoctor.core.report import Report

JUDGEMENT = Judgement(
    metric="perplexity",
    layer="rvq.layers.0",
    relation=">=",
    threshold=50.0,
    value=60.2,
    low=48.1,
    high=70.5,
    status="inconclusive",
    level="error",
    reason="60.2 [48.1 to 70.5] against at least 50",
)
GATE = Gate(
    status="fail",
    judgements=(JUDGEMENT,),
    hidden=("VQ503:vq",),
    failing=("VQ101:vq",),
)
REPORT = Report(
    version="0.1.0",
    checkpoint=None,
    layers=(),
    evidence=(),
    unavailable=(),
    outcomes=(),
    findings=(),
    plan=(),
    verdict="inconclusive",
)


@pytest.mark.parametrize("gate", [None, GATE], ids=["none", "fail"])
def test_a_report_carries_its_gate(gate: Gate | None) -> None:
    report = Report(**{**REPORT.__dict__, "gate": gate})
    data = json.loads(report.to_json())
    assert (data["gate"] and data["gate"]["status"]) == (gate and gate.status)
    assert Report.from_dict(data) == report


def test_a_report_without_the_key_has_no_gate() -> None:
    data = json.loads(REPORT.to_json())
    del data["gate"]
    assert Report.from_dict(data).gate is None


def test_a_damaged_gate_is_a_damaged_report() -> None:
    data = json.loads(REPORT.to_json())
    for gate in ("pass", ["pass"], {"status": "pass"}, {"status": "pass", "judgements": [3]}):
        with pytest.raises(UserError, match="damaged"):
            Report.from_dict({**data, "gate": gate})


def test_the_fingerprint_knows_metric_and_layer_and_no_figures() -> None:
    assert JUDGEMENT.fingerprint == "gate/perplexity:rvq.layers.0"
    values = encode(JUDGEMENT)
    moved = Judgement(**{**values, "threshold": 10.0, "value": 3.0, "status": "fail"})
    assert moved.fingerprint == JUDGEMENT.fingerprint
    assert Judgement(**{**values, "layer": None}).fingerprint == "gate/perplexity:"
    assert Judgement(**{**values, "baseline": 66.0}).fingerprint == "gate/perplexity-drop:rvq.layers.0"
