"""The parts of a report that a CI system shows: judgements that did not pass, gaps, and findings.

Sentences may hold strings from the examined file as they are; the format that writes a sentence escapes them.
"""

import posixpath
from collections.abc import Iterator
from pathlib import PurePath

from vqdoctor.core.finding import Finding
from vqdoctor.core.frozen import frozen
from vqdoctor.core.gate import Judgement
from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.render import _phrases as phrases
from vqdoctor.render._renderer import RenderOptions

INCOMPLETE = "incomplete"
"""The rule of an incomplete inspection: a crashed check, no VQ layer, a layer whose usage is unknown."""


@frozen
class Alert:
    """One thing to show.

    Attributes:
        rule: its kind: a check's code, "gate/perplexity", or "incomplete".
        title: a few words, with the layer.
        message: one or more sentences.
        severity: how bad.
        layer: the VQ layer, or None for the whole model.
        fingerprint: its identity between two runs.
        hidden: whether it is known from before and silenced.
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
    """Return everything to show of one report: decisive judgements and gaps, then findings by rank."""
    return (*_judgements(report), *_gaps(report), *(_of(report, finding) for finding in report.findings))


def _judgements(report: Report) -> Iterator[Alert]:
    gate = report.gate
    if gate is None:
        return
    for judgement in gate.judgements:
        if judgement.status != "pass":
            decisive = judgement.level == "error"
            verb = "failed" if judgement.status == "fail" else "is inconclusive"
            yield Alert(
                rule=judgement.fingerprint.partition(":")[0],
                title=f"{'gate' if decisive else 'assertion'} {verb}: {phrases.judged_on(judgement)}",
                message=f"{phrases.assertion(judgement)}: {judgement.reason}",
                severity=Severity.ERROR if decisive else Severity.WARNING,
                layer=judgement.layer,
                fingerprint=judgement.fingerprint,
                hidden=judgement.fingerprint in gate.hidden,
                judgement=judgement,
            )


def _gaps(report: Report) -> Iterator[Alert]:
    """Yield the gaps that leave an inspection incomplete; a gate has judgements for them."""
    if report.gate:
        return

    def gap(title: str, message: str, layer: str | None, subject: str) -> Alert:
        return Alert(
            rule=INCOMPLETE,
            title=title,
            message=message,
            severity=Severity.ERROR,
            layer=layer,
            fingerprint=f"{INCOMPLETE}/{subject}",
        )

    for outcome in phrases.crashed(report):
        title = phrases.on(f"{outcome.code} crashed", outcome.layer)
        subject = f"{outcome.code}:{outcome.layer or ''}"
        yield gap(title, f"{outcome.reason}. {phrases.CRASH}", outcome.layer, subject)
    if not report.layers:
        message = "No layer was examined. If there is a codebook, name it: --codebook-key KEY."
        if not report.runs_model:
            message += " A layer without one, such as FSQ, shows in a run: --task FILE.py:NAME."
        yield gap(phrases.no_layer(report), message, None, "layers:")
    for layer in report.layers:
        name = layer.name
        if not report.usages(name):
            message = f"No source shows the codes of {name} in use: {phrases.why_unknown(report, name)}."
            yield gap(f"usage of {name} is unknown", message, name, f"usage:{name}")


def _of(report: Report, finding: Finding) -> Alert:
    told = [finding.message]
    if finding.explained_by:
        told.append(f"A symptom of {phrases.cause(finding)}.")
    elif finding.remedies:
        told.append(f"Remedy: {finding.remedies[0]}.")
    if finding.decide_with:
        told.append(f"To be certain: {finding.decide_with}.")
    return Alert(
        rule=finding.code,
        title=phrases.on(f"{finding.code} {finding.name}", finding.layer),
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
