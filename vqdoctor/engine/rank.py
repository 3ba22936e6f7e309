"""From findings to a ranking of causes, each with the symptoms that it explains.

A finding is a symptom of a root when its check names the root's code in `explained_by` and both are
on the same layer, or one of them is about the whole model. A note is advice: it explains nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from vqdoctor.core.check import Check
from vqdoctor.core.evidence import Evidence, GradientPath, Trace, Usage
from vqdoctor.core.finding import Finding
from vqdoctor.core.levels import Severity, Stage
from vqdoctor.core.undecided import CAUSES_IN_USE

NON_FINITE = "VQ901"
_ANY = "\x00"
"""Stands for all layers together, and is the name of none."""


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
    explained_by = {check.code: check.explained_by for check in checks}
    known: defaultdict[tuple[str, str | None], list[Finding]] = defaultdict(list)
    for finding in findings:
        if finding.severity > Severity.NOTE:
            known[finding.code, finding.layer].append(finding)
            known[finding.code, _ANY].append(finding)
    causes = {id(f): _causes(f, known, explained_by.get(f.code, ())) for f in findings}
    # The first cause that is itself unexplained; a finding without one is a root.
    root_of = {id(f): next((c for c in causes[id(f)] if not causes[id(c)]), f) for f in findings}
    symptoms_of: defaultdict[int, list[Finding]] = defaultdict(list)
    for finding in findings:
        if root_of[id(finding)] is not finding:
            symptoms_of[id(root_of[id(finding)])].append(finding)
    ordered: list[Finding] = []
    roots = []
    for root in (f for f in findings if root_of[id(f)] is f):
        symptoms = symptoms_of[id(root)]
        measures = root.stage is Stage.USAGE and root.code not in CAUSES_IN_USE
        unexplained = measures and root.severity > Severity.NOTE
        rivals = (cause for symptom in symptoms for cause in causes[id(symptom)] if not causes[id(cause)])
        undecided = unexplained or any(rival.code != root.code for rival in rivals)
        hint = root.decide_with or (next_step if undecided else "")
        worst = max(f.severity for f in (root, *symptoms))
        roots.append((root.replace(severity=worst, decide_with=hint), symptoms))
    for root, symptoms in sorted(roots, key=lambda pair: _weight(pair[0])):
        ordered.append(root)
        ordered.extend(f.replace(explained_by=root.fingerprint) for f in sorted(symptoms, key=_weight))
    return tuple(f.replace(rank=i) for i, f in enumerate(ordered, start=1))


def _causes(
    finding: Finding, known: Mapping[tuple[str, str | None], list[Finding]], codes: Iterable[str]
) -> list[Finding]:
    """Return the findings of these codes that may explain one, in the order of the codes."""
    places = (_ANY,) if finding.layer is None else (finding.layer, None)
    return [
        cause
        for code in codes
        for place in places
        for cause in known.get((code, place), ())
        if cause is not finding
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

    A bare file lacks data, dumped vectors lack the model, and a model that was run lacks a look at its
    training. After that look the answer is "": there is no further experiment.
    """
    items = tuple(evidence)
    kinds = {type(item) for item in items}
    if Trace in kinds:
        return ""
    if GradientPath in kinds:
        return "--probe-steps 20"
    has_data = any(isinstance(item, Usage) and item.source == "batch" for item in items)
    return "--task FILE.py:NAME" if has_data else "--data batch.npz"
