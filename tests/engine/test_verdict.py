"""Verdicts and exit codes, on hand-made reports."""

from __future__ import annotations

from typing import Any

from vqdoctor.core.evidence import Usage
from vqdoctor.core.exit_codes import ExitCode
from vqdoctor.core.finding import Finding, Outcome, Status
from vqdoctor.core.levels import Confidence, Severity, Stage
from vqdoctor.core.report import LayerSummary, Report
from vqdoctor.engine.verdict import exit_code, verdict

LAYER = LayerSummary(name="vq", layout="reference", layout_confidence="high", num_codes=4, dim=2)
USAGE = Usage(
    layer="vq", source="batch", sample_size=400, num_codes=4, used=4, active=4, expected_used=4.0,
    expected_active=4.0, share=1.0, perplexity=4.0, perplexity_low=3.9, perplexity_high=4.0,
    plug_in_perplexity=4.0, estimator="grassberger", max_share=0.25,
)  # fmt: skip


def finding(code: str, severity: Severity) -> Finding:
    return Finding(
        code=code, name="x", stage=Stage(int(code[2])), severity=severity, confidence=Confidence.HIGH,
        layer="vq", message="…",
    )  # fmt: skip


def report(findings: tuple[Finding, ...] = (), **more: Any) -> Report:
    fields: dict[str, Any] = {"layers": (LAYER,), "evidence": (USAGE,), "outcomes": ()}
    fields |= more
    return Report(
        version="0", checkpoint=None, unavailable=(), findings=findings, plan=(),
        verdict=verdict(findings, fields["layers"], fields["evidence"], fields["outcomes"]), **fields,
    )  # fmt: skip


def test_verdicts() -> None:
    assert report().verdict == "healthy"
    assert report((finding("VQ501", Severity.ERROR),)).verdict == "collapsed"
    assert report((finding("VQ501", Severity.WARNING),)).verdict == "at-risk"
    assert report((finding("VQ603", Severity.WARNING),)).verdict == "at-risk"
    assert report((finding("VQ902", Severity.NOTE),)).verdict == "healthy"
    assert report(evidence=()).verdict == "inconclusive"
    assert report(layers=()).verdict == "inconclusive"


def judged(code: str, status: Status, layer: str = "vq") -> Outcome:
    return Outcome(code=code, layer=layer, status=status, reason="too few" if status == "skipped" else None)


def test_healthy_is_earned() -> None:
    """Where too little evidence skipped VQ501 or VQ502, the verdict is open, whatever else passed."""
    whole = (judged("VQ501", "passed"), judged("VQ502", "passed"))
    assert report(outcomes=whole).verdict == "healthy"
    for code in ("VQ501", "VQ502"):
        short = tuple(judged(code, "skipped") if o.code == code else o for o in whole)
        found = report(outcomes=short)
        assert (found.verdict, exit_code(found)) == ("inconclusive", ExitCode.INCOMPLETE)
        warned = report((finding("VQ603", Severity.WARNING),), outcomes=short)
        assert (warned.verdict, exit_code(warned)) == ("at-risk", ExitCode.INCOMPLETE)
        assert exit_code(warned, Severity.WARNING) is ExitCode.FINDINGS


def test_a_layer_without_a_codebook_is_judged_by_its_perplexity_alone() -> None:
    implicit = {"evidence": (USAGE.replace(implicit=True),)}
    assert report(outcomes=(judged("VQ502", "skipped"),), **implicit).verdict == "healthy"
    assert report(outcomes=(judged("VQ501", "skipped"),), **implicit).verdict == "inconclusive"


def test_a_check_that_the_user_left_out_is_not_missed() -> None:
    assert report(outcomes=(judged("VQ501", "passed"),)).verdict == "healthy"
    assert report(outcomes=(judged("VQ502", "skipped", "another"),)).verdict == "healthy"


def test_exit_codes_in_their_precedence() -> None:
    crashed = Outcome(code="VQ101", layer="vq", status="crashed", reason="ZeroDivisionError")
    bad = (finding("VQ502", Severity.ERROR),)
    assert exit_code(report()) is ExitCode.OK
    assert exit_code(report(bad)) is ExitCode.FINDINGS
    assert exit_code(report(bad, outcomes=(crashed,))) is ExitCode.INCOMPLETE
    assert exit_code(report(bad, evidence=())) is ExitCode.FINDINGS
    assert exit_code(report(evidence=())) is ExitCode.INCOMPLETE
    assert exit_code(report(layers=())) is ExitCode.INCOMPLETE


def test_the_bar_decides_what_fails() -> None:
    warned = report((finding("VQ603", Severity.WARNING),))
    assert exit_code(warned) is ExitCode.OK
    assert exit_code(warned, Severity.WARNING) is ExitCode.FINDINGS
    assert exit_code(report((finding("VQ501", Severity.ERROR),)), None) is ExitCode.OK


def test_a_report_round_trips() -> None:
    full = report((finding("VQ501", Severity.ERROR),))
    assert Report.from_dict(full.to_dict()) == full
