"""From findings to a ranking of causes, each with the symptoms that it explains.

A finding is a symptom of a root when its check names the root's code in `explained_by` and both are
on the same layer, or the root is about the whole model. A note is advice: it explains nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from vqdoctor.core.check import Check
from vqdoctor.core.evidence import Evidence, GradientPath, Trace
from vqdoctor.core.finding import Finding
from vqdoctor.core.levels import Severity, Stage

NON_FINITE = "VQ901"


def rank(
    findings: Sequence[Finding], checks: Iterable[Check], evidence: Iterable[Evidence] | None = None
) -> tuple[Finding, ...]:
    """Order the findings: roots by weight, each followed by its symptoms, numbered from 1.

    A root takes the worst severity of itself and its symptoms. Roots, and likewise the symptoms
    of one root, sort by severity (worst first), stage, confidence (surest first), code and layer;
    a non-finite VQ tensor comes before everything.

    Args:
        findings: the findings of all checks.
        checks: those checks, each with the causes that may explain it.
        evidence: the evidence of the findings. With it, roots that might each explain the same symptom, and
            poor usage for which no cause was found, name the experiment that would decide.
    """
    next_step = "" if evidence is None else experiment(evidence)
    causes_of = {check.code: check.explained_by for check in checks}
    root_of = {id(f): _root(f, findings, causes_of) for f in findings}
    ordered: list[Finding] = []
    roots = []
    for finding in findings:
        if root_of[id(finding)] is finding:
            symptoms = [f for f in findings if root_of[id(f)] is finding and f is not finding]
            worst = max(f.severity for f in (finding, *symptoms))
            unexplained = finding.stage is Stage.USAGE and finding.severity > Severity.NOTE
            open_question = unexplained or _has_rival(finding, symptoms, findings, causes_of)
            hint = finding.decide_with or (next_step if open_question else "")
            roots.append((finding.replace(severity=worst, decide_with=hint), symptoms))
    for root, symptoms in sorted(roots, key=lambda pair: _weight(pair[0])):
        ordered.append(root)
        ordered.extend(f.replace(explained_by=root.fingerprint) for f in sorted(symptoms, key=_weight))
    return tuple(f.replace(rank=i) for i, f in enumerate(ordered, start=1))


def _root(finding: Finding, findings: Sequence[Finding], causes_of: Mapping[str, tuple[str, ...]]) -> Finding:
    """Return the first root among the causes that the finding's check names; itself where there is none."""
    causes = _causes(finding, findings, causes_of)
    roots = (cause for cause in causes if not _causes(cause, findings, causes_of))
    return next(roots, finding)


def _has_rival(
    root: Finding,
    symptoms: Iterable[Finding],
    findings: Sequence[Finding],
    causes_of: Mapping[str, tuple[str, ...]],
) -> bool:
    """Whether a cause that is not itself a symptom would explain one of the root's symptoms as well."""
    return any(
        rival.code != root.code and not _causes(rival, findings, causes_of)
        for symptom in symptoms
        for rival in _causes(symptom, findings, causes_of)
    )


def _causes(
    finding: Finding, findings: Sequence[Finding], causes_of: Mapping[str, tuple[str, ...]]
) -> list[Finding]:
    return [
        cause
        for code in causes_of.get(finding.code, ())
        for cause in findings
        if cause.code == code
        and cause is not finding
        and cause.severity > Severity.NOTE
        and cause.layer in (finding.layer, None)
    ]


def _weight(finding: Finding) -> tuple[object, ...]:
    broken_codebook = finding.code == NON_FINITE and finding.layer is not None
    return (
        not broken_codebook,
        -finding.severity,
        finding.stage,
        -finding.confidence,
        finding.code,
        finding.layer or "",
    )


def experiment(evidence: Iterable[Evidence]) -> str:
    """Return the flag for the evidence that is still missing to decide between rival causes.

    A bare file lacks data; a model that was run lacks a look at its training. After that look the answer
    is "": there is no further experiment.
    """
    kinds = {type(item) for item in evidence}
    if Trace in kinds:
        return ""
    return "--probe-steps 20" if GradientPath in kinds else "--data batch.npz"
