"""JUnit XML, for Jenkins, GitLab and others: one suite per checkpoint, one case per assertion and check.

A case fails exactly where it fails the run. An unknown result is an error, never a pass; a warning or a
known problem is skipped with its reason, which CI systems show in yellow.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vqdoctor.core.finding import Outcome
from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.render import _phrases as phrases
from vqdoctor.render._alerts import INCOMPLETE, Alert, alerts, fails, file_of
from vqdoctor.render._renderer import Renderer, RenderOptions
from vqdoctor.render._text import printable

if TYPE_CHECKING:
    import junitparser

_NO_XML = {0xFFFE: r"\ufffe", 0xFFFF: r"\uffff"}
"""The characters that are printable, and that XML 1.0 forbids."""

KNOWN = "known: it was there before"

Ended = Literal["passed", "skipped", "failure", "error"]

ENDS: Mapping[str, tuple[Ended, str, str]] = {
    "pass": ("passed", "", ""),
    "fail": ("failure", "gate", ""),
    "inconclusive": ("error", "inconclusive", ""),
    "known": ("skipped", "known", f"{KNOWN}: "),
    "warn": ("skipped", "warning", "warning: "),
}
"""How the case of a judgement ends, its kind, and the words before its line."""


@dataclass(frozen=True)
class _Case:
    """One test case: how it ended, in one line, and further details."""

    group: Literal["gate", "checks", "usage"]
    name: str
    ended: Ended = "passed"
    kind: str = ""
    line: str = ""
    details: tuple[str, ...] = ()


def render(report: Report, options: RenderOptions) -> str:
    """Return the report as JUnit XML."""
    return several([report], options)


def several(reports: Sequence[Report], options: RenderOptions) -> str:
    """Return the reports as JUnit XML, a suite each."""
    import junitparser

    whole = junitparser.JUnitXml("vqdoctor")
    for report in reports:
        whole.append(_suite(report, options))  # type: ignore[no-untyped-call]  # add_testsuite merges two of one name
    whole.update_statistics()  # type: ignore[no-untyped-call]
    file = io.BytesIO()
    whole.write(file, pretty=True)
    return file.getvalue().decode("utf-8").replace("\t", "  ").rstrip("\n") + "\n"


def _suite(report: Report, options: RenderOptions) -> junitparser.TestSuite:
    import junitparser

    def safe(text: str) -> str:
        return printable(text, ascii=options.ascii).translate(_NO_XML)

    file = safe(file_of(report, options))
    suite = junitparser.TestSuite(file)
    suite.add_property("verdict", report.verdict)
    if report.checkpoint:
        suite.add_property("fingerprint", safe(report.checkpoint.fingerprint))
    results = {"failure": junitparser.Failure, "error": junitparser.Error, "skipped": junitparser.Skipped}
    cases = []
    seen: Counter[tuple[str, str]] = Counter()
    for item in _cases(report, options):
        # CI systems tell cases apart by class and name, whatever the suite, and cut a class at its dots.
        seen[item.group, item.name] += 1
        again = f" ({n})" if (n := seen[item.group, item.name]) > 1 else ""
        group = f"vqdoctor.{file.replace('.', '_')}.{item.group}"
        case = junitparser.TestCase(safe(item.name) + again, group)
        details = "\n".join(safe(line) for line in (item.line, *item.details) if line)
        if item.ended == "passed":
            case.system_out = details
        else:
            result = results[item.ended](safe(item.line), item.kind)
            result.text = details
            case.result = result
        cases.append(case)
    suite.add_testcases(cases)
    return suite


def _cases(report: Report, options: RenderOptions) -> Iterator[_Case]:
    found: dict[tuple[str, str | None], list[Alert]] = {}
    for alert in alerts(report):
        if alert.finding:
            found.setdefault((alert.finding.code, alert.finding.layer), []).append(alert)
    if report.gate:
        for judgement in report.gate.judgements:
            ended, kind, before = ENDS[phrases.judged(report.gate, judgement)]
            line = f"{before}{phrases.assertion(judgement)}: {judgement.reason}"
            yield _Case("gate", phrases.judged_on(judgement), ended, kind, line)
    else:
        yield from _usages(report)
    for outcome in report.outcomes:
        told = found.pop((outcome.code, outcome.layer), [])
        if outcome.status == "found" or told:
            yield _found(report, outcome.code, outcome.layer, told, options)
        else:
            yield _outcome(report, outcome)
    for (code, layer), told in found.items():
        yield _found(report, code, layer, told, options)


def _usages(report: Report) -> Iterator[_Case]:
    """Yield a case per layer: an inspection that leaves the usage of a layer unknown is incomplete."""
    for layer in report.layers:
        usage = next(iter(report.usages(layer.name).values()), None)
        if usage:
            yield _Case("usage", f"usage of {layer.name}", line=phrases.usage_sentence(usage))
        else:
            why = phrases.why_unknown(report, layer.name)
            yield _Case("usage", f"usage of {layer.name}", "error", INCOMPLETE, why)
    if not report.layers:
        line = f"{phrases.no_layer(report)}, so nothing was examined"
        yield _Case("usage", "VQ layers", "error", INCOMPLETE, line)


def _outcome(report: Report, outcome: Outcome) -> _Case:
    name = phrases.on(outcome.code, outcome.layer)
    reason = outcome.reason or "no reason given"
    if outcome.status == "passed":
        return _Case("checks", name)
    if outcome.status == "skipped":
        return _Case("checks", name, "skipped", "skipped", reason)
    let_pass = report.gate is not None and report.gate.status == "pass"
    return _Case("checks", name, "skipped" if let_pass else "error", "crashed", f"crashed: {reason}")


def _found(report: Report, code: str, layer: str | None, told: list[Alert], options: RenderOptions) -> _Case:
    worst = max((alert.severity for alert in told), default=Severity.ERROR)
    line = "; ".join(alert.message for alert in told)
    ended: Ended = "skipped" if worst > Severity.NOTE else "passed"
    if any(alert.hidden for alert in told):
        ended, line = "skipped", f"{KNOWN}: {line}"
    elif any(alert.finding and fails(report, alert.finding, options) for alert in told):
        ended = "failure"
    details = tuple(
        ", ".join(" ".join(filter(None, phrases.measured(m))) for m in alert.finding.measurements)
        for alert in told
        if alert.finding
    )
    return _Case("checks", phrases.on(code, layer), ended, worst.label, f"{worst.label}: {line}", details)


RENDERER = Renderer(name="junit", suffix=".xml", render=render, several=several)
