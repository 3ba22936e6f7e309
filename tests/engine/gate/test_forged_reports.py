"""A saved report is judged again from its evidence, and its figures must lie where figures can lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gate_reports import METRICS, a_report, a_usage, of_ema

from vqdoctor.core.assertion import METRICS as ASSERTED
from vqdoctor.core.errors import CheckpointError
from vqdoctor.core.evidence import EmaState
from vqdoctor.core.exit_codes import ExitCode
from vqdoctor.core.report import Report
from vqdoctor.engine.gate import Policy, Source, judge_all, load_reports
from vqdoctor.engine.gate.figures import Figure, figure

COLLAPSED = a_usage(1.0, 0.0, used=1, active=1, share=1 / 256, max_share=1.0, perplexity_high=1.0)


def written(report: Report, folder: Path, **changes: Any) -> Path:
    path = folder / "report.json"
    path.write_text(json.dumps(report.to_dict() | changes))
    return path


def test_findings_that_were_taken_out_are_found_again(tmp_path: Path) -> None:
    path = written(a_report(COLLAPSED), tmp_path, findings=[], outcomes=[], verdict="healthy")
    judged = judge_all(Source(paths=(path,)), Policy())
    assert judged.exit_code is ExitCode.FINDINGS
    assert judged.reports[0].verdict == "collapsed"


IMPOSSIBLE = {
    "above K": a_usage(300.0, 5.0),
    "below its interval": a_usage(perplexity_low=185.0),
    "negative": a_usage(perplexity_low=-5.0),
    "more used than codes": a_usage(used=300, share=300 / 256),
    "a share of its own": a_usage(share=0.5),
    "negative counts": a_usage(count_quantiles=(-1.0, 2.0)),
    "worth more than its vectors": a_usage(effective_size=1e9),
    "another codebook's": a_usage(num_codes=512, share=250 / 512),
    "accuracy": METRICS.replace(accuracy=1.5),
    "ece": METRICS.replace(ece_low=0.2),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_impossible_figure_is_refused(name: str, tmp_path: Path) -> None:
    path = written(a_report(IMPOSSIBLE[name]), tmp_path)
    with pytest.raises(CheckpointError, match="impossible"):
        load_reports(path)


def test_a_possible_report_is_read(tmp_path: Path) -> None:
    assert len(load_reports(written(a_report(a_usage(), METRICS), tmp_path))) == 1


def test_counts_that_are_refuted_decide_nothing(tmp_path: Path) -> None:
    refuted = EmaState.healthy(sums_disagreement=0.99, worst_disagreement=0.99)
    path = written(a_report(of_ema(), refuted), tmp_path)
    judged = judge_all(Source(paths=(path,)), Policy(bar=None))
    found = figure(judged.reports[0], ASSERTED["perplexity"], "vq")
    assert isinstance(found, Figure) and "VQ303 refutes" in found.shortage
    assert judged.exit_code is ExitCode.INCOMPLETE
    sound = written(a_report(of_ema(), EmaState.healthy()), tmp_path)
    assert judge_all(Source(paths=(sound,)), Policy(bar=None)).exit_code is ExitCode.OK
