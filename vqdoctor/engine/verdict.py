"""The verdict of a report, and the exit code that a shell gets for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vqdoctor.core.evidence import Evidence
from vqdoctor.core.exit_codes import ExitCode
from vqdoctor.core.finding import Finding, Outcome
from vqdoctor.core.levels import Severity
from vqdoctor.core.report import LayerSummary, Report, Verdict
from vqdoctor.core.undecided import undecided_layers, undecided_usage

COLLAPSE = "VQ501"


def verdict(
    findings: Iterable[Finding],
    layers: Sequence[LayerSummary],
    evidence: Iterable[Evidence],
    outcomes: Iterable[Outcome],
) -> Verdict:
    """Say in one word how the model is.

    collapsed: VQ501 as an error on any layer; at-risk: any other error or warning; inconclusive:
    none of these, and there is no layer or the evidence does not settle the usage of one; else healthy,
    which is earned: VQ501 and VQ502 passed on every layer.
    """
    found = list(findings)
    if any(f.code == COLLAPSE and f.severity is Severity.ERROR for f in found):
        return "collapsed"
    if any(f.severity > Severity.NOTE for f in found):
        return "at-risk"
    settled = layers and not undecided_usage(layers, outcomes, evidence)
    return "healthy" if settled else "inconclusive"


def exit_code(report: Report, fail_on: Severity | None = Severity.ERROR) -> ExitCode:
    """Return the exit code of a report; `fail_on` None means that no finding fails.

    A crashed check comes before findings, and these come before too little evidence. A retraining is
    judged by its goals alone; where there was nothing to cure, the findings are what is left. A patch of the
    source is judged by the causes that it leaves.
    """
    done = report.retraining
    if done is not None and not done.needless:
        if done.interrupted:
            return ExitCode.INCOMPLETE
        return ExitCode.OK if done.cured else ExitCode.FINDINGS
    if any(outcome.status == "crashed" for outcome in report.outcomes):
        return ExitCode.INCOMPLETE
    steps = report.source.steps if report.source else ()
    open_steps = {step.remedy for step in steps if step.status != "proven"}  # on another layer
    proven = (step for step in steps if step.status == "proven" and step.remedy not in open_steps)
    answered = {code for step in proven for code in step.codes}
    left = [f for f in (report.roots() if steps else report.findings) if f.code not in answered]
    if fail_on is not None and any(f.severity >= fail_on for f in left):
        return ExitCode.FINDINGS
    return ExitCode.OK if report.layers and not undecided_layers(report) else ExitCode.INCOMPLETE
