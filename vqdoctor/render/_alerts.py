"""What a CI system is to show of a report: judgements that did not pass, gaps, and findings.

Sentences may hold strings from the examined file as they are. Escaping is for the one who writes them.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

from vqdoctor.core.finding import Finding
from vqdoctor.core.gate import Judgement
from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.render import _phrases as story
from vqdoctor.render._renderer import RenderOptions

INCOMPLETE = "incomplete"
"""The rule of what could not be told: a crashed check, no VQ layer, a layer whose usage is unknown."""


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One thing to show.

    Attributes:
        rule: what kind of thing it is: a check's code, "gate/perplexity", or "incomplete".
        title: a few words, with the layer.
        message: one or more sentences.
        severity: how bad.
        layer: the VQ layer, or None for the whole model.
        fingerprint: what identifies it between two runs.
        hidden: whether it was there before and is silenced.
        finding: the finding that it shows, or None.
        judgement: the judgement that it shows, or None.
    """

    rule: str
    title: str
    message: str
    severity: Severity
    layer: str | None
    fingerprint: str
    hidden: bool = False
    finding: Finding | None = None
    judgement: Judgement | None = None


def alerts(report: Report) -> tuple[Alert, ...]:
    """Return all that is to be shown of one report: what decided first, then the findings by rank."""
    return (*_judgements(report), *_gaps(report), *(_of(report, finding) for finding in report.findings))


def _judgements(report: Report) -> Iterator[Alert]:
    gate = report.gate
    for judgement in gate.judgements if gate else ():
        assert gate is not None
        if judgement.status != "pass":
            decisive = judgement.level == "error"
            verb = "failed" if judgement.status == "fail" else "is inconclusive"
            yield Alert(
                rule=judgement.fingerprint.partition(":")[0],
                title=f"{'gate' if decisive else 'assertion'} {verb}: {story.judged_on(judgement)}",
                message=f"{story.assertion(judgement)}: {judgement.reason}",
                severity=Severity.ERROR if decisive else Severity.WARNING,
                layer=judgement.layer,
                fingerprint=judgement.fingerprint,
                hidden=judgement.fingerprint in gate.hidden,
                judgement=judgement,
            )


def _gaps(report: Report) -> Iterator[Alert]:
    """Yield what leaves an inspection incomplete; a gate says so itself, by judgements."""
    if report.gate:
        return
    for outcome in story.crashed(report):
        where = f" on {outcome.layer}" if outcome.layer else ""
        yield Alert(
            rule=INCOMPLETE,
            title=f"{outcome.code} crashed{where}",
            message=f"{outcome.reason}. What it looks for was not looked for; please report this bug.",
            severity=Severity.ERROR,
            layer=outcome.layer,
            fingerprint=f"{INCOMPLETE}/{outcome.code}:{outcome.layer or ''}",
        )
    if not report.layers:
        yield Alert(
            rule=INCOMPLETE,
            title="no VQ layer was found",
            message="Nothing was examined. If there is a codebook, name it: --codebook-key KEY.",
            severity=Severity.ERROR,
            layer=None,
            fingerprint=f"{INCOMPLETE}/layers:",
        )
    for layer in report.layers:
        if not report.usages(layer.name):
            why = "; ".join(story.unknown_usage(report, layer.name)) or "no source tells it"
            yield Alert(
                rule=INCOMPLETE,
                title=f"usage of {layer.name} is unknown",
                message=f"Nothing tells which codes {layer.name} uses: {why}.",
                severity=Severity.ERROR,
                layer=layer.name,
                fingerprint=f"{INCOMPLETE}/usage:{layer.name}",
            )


def _of(report: Report, finding: Finding) -> Alert:
    told = [finding.message]
    if finding.explained_by:
        told.append(f"A symptom of {story.cause(finding)}.")
    elif finding.remedies:
        told.append(f"Remedy: {finding.remedies[0]}.")
    if finding.decide_with:
        told.append(f"To be certain: {finding.decide_with}.")
    return Alert(
        rule=finding.code,
        title=f"{finding.code} {finding.name}{story.place(finding)}",
        message=" ".join(told),
        severity=finding.severity,
        layer=finding.layer,
        fingerprint=finding.fingerprint,
        hidden=report.gate is not None and finding.fingerprint in report.gate.hidden,
        finding=finding,
    )


def fails(report: Report, finding: Finding, options: RenderOptions) -> bool:
    """Whether a finding fails the run: as the gate says, or by the bar where there is no gate."""
    if report.gate:
        return finding.fingerprint in report.gate.failing
    return options.bar is not None and finding.severity >= options.bar


def file_of(report: Report, options: RenderOptions) -> str:
    """Return the examined file as the repository knows it: relative to its root, parted by "/".

    A file outside of the repository stays absolute; a live model is called "model".
    """
    if report.checkpoint is None:
        return "model"
    path = PurePath(options.folder, report.checkpoint.path).as_posix()
    path = posixpath.normpath(path)
    inside = options.root and PurePath(path).is_relative_to(options.root)
    return PurePath(path).relative_to(options.root).as_posix() if inside else path
