"""From findings to a ranking of causes, each with the symptoms that it explains.

A finding is a symptom of a root when its check names the root's code in `explained_by` and both are
on the same layer, or one of them is about the whole model. A finding that tells itself what it causes is a
root, and comes before the causes that a check names. A note is advice: it explains nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from vqdoctor.checks import _harm
from vqdoctor.core.check import Check
from vqdoctor.core.evidence import (
    Evidence,
    Experiments,
    GradientPath,
    LossBalance,
    TaskMetrics,
    Trace,
    TrainingRecord,
)
from vqdoctor.core.finding import Finding
from vqdoctor.core.levels import Confidence, Severity, Stage
from vqdoctor.core.model_run import was_run
from vqdoctor.core.undecided import CAUSES_IN_USE
from vqdoctor.engine.decide import OPEN, weighed

NON_FINITE = "VQ901"
_ANY = "\x00"
"""Stands for all layers together, and is the name of none."""
DATA = "--data batch.npz"
"""The flag of a check that had no data; a run of a model has some."""


def rank(
    findings: Sequence[Finding], checks: Iterable[Check], evidence: Iterable[Evidence] | None = None
) -> tuple[Finding, ...]:
    """Order the findings: roots by weight, each followed by its symptoms, numbered from 1.

    A root takes the worst severity of itself and its symptoms. Where the codes cost the task and no root is
    an error, the first cause is one. Roots, and likewise the symptoms of one root,
    sort by what the experiments say of them (see `Weighed`), severity (worst first), stage, confidence
    (surest first), code and layer; a non-finite VQ tensor comes before everything.

    Args:
        findings: the findings of all checks.
        checks: those checks, each with the causes that may explain it.
        evidence: the evidence of the findings. With it, roots that might each explain the same symptom, and
            poor usage for which no cause was found, name the experiment that would decide.
    """
    items = () if evidence is None else tuple(evidence)
    next_step = "" if evidence is None else experiment(items)
    runs_model = was_run(items)
    explained_by = {check.code: check.explained_by for check in checks}
    tried = weighed(findings, explained_by, items)
    order = {w.finding.fingerprint: w.order for w in tried}
    as_it_was = {id(w.finding): f for w, f in zip(tried, findings, strict=True)}
    findings = [w.finding for w in tried]
    known: defaultdict[tuple[str, str | None], list[Finding]] = defaultdict(list)
    for finding in findings:
        if finding.severity > Severity.NOTE:
            known[finding.code, finding.layer].append(finding)
            known[finding.code, _ANY].append(finding)
    causes = {
        id(f): sorted(_causes(f, known, explained_by.get(f.code, ())), key=lambda c: order[c.fingerprint])
        for f in findings
    }
    # The first cause, or cause of a cause, that is itself unexplained; a finding without one is a root.
    chains = {
        id(f): [*causes[id(f)], *(c for own in causes[id(f)] for c in causes[id(own)])] for f in findings
    }
    root_of = {id(f): next((c for c in chains[id(f)] if not causes[id(c)]), f) for f in findings}
    symptoms_of: defaultdict[int, list[Finding]] = defaultdict(list)
    for finding in findings:
        if root_of[id(finding)] is not finding:
            symptoms_of[id(root_of[id(finding)])].append(finding)
    ordered: list[Finding] = []
    roots: list[tuple[Finding, list[Finding]]] = []
    for root in (f for f in findings if root_of[id(f)] is f):
        symptoms = symptoms_of[id(root)]
        measures = root.stage is Stage.USAGE and root.code not in CAUSES_IN_USE
        unexplained = measures and root.severity > Severity.NOTE
        rivals = (cause for symptom in symptoms for cause in causes[id(symptom)] if not causes[id(cause)])
        undecided = unexplained or any(rival.code != root.code for rival in rivals)
        own = root.decide_with
        if unexplained or runs_model:  # data was there already, or tells no cause by itself
            own = own.removeprefix(DATA).strip()
        hint = own or (next_step if undecided else "")
        worst = max(f.severity for f in (root, *symptoms))
        roots.append((root.replace(severity=worst, decide_with=hint), symptoms))
    roots.sort(key=lambda pair: _weight(pair[0], order[pair[0].fingerprint]))
    harmful = _harmful([root for root, _ in roots], items)
    for root, symptoms in roots:
        ordered.append(root.replace(severity=Severity.ERROR) if root is harmful else root)
        told = (as_it_was[id(f)] for f in symptoms)  # the experiments are told of the cause
        ordered.extend(f.replace(explained_by=root.fingerprint) for f in sorted(told, key=_weight))
    return tuple(f.replace(rank=i) for i, f in enumerate(ordered, start=1))


def _harmful(roots: Sequence[Finding], evidence: Iterable[Evidence]) -> Finding | None:
    """Return the warning that the measured harm makes an error: the first, where no root is an error yet.

    The loss that the codes cost against z_e has a cause, and the first one is the likeliest. A finding on the
    task itself only measures that loss, and one of low confidence may be wrong: neither becomes an error.
    """
    cost = any(isinstance(item, TaskMetrics) and _harm.costs(item) for item in evidence)
    if not cost or any(root.severity is Severity.ERROR for root in roots):
        return None
    blamed = (f for f in roots if f.severity is Severity.WARNING and f.confidence > Confidence.LOW)
    return next((root for root in blamed if root.stage < Stage.DOWNSTREAM), None)


def _causes(
    finding: Finding, known: Mapping[tuple[str, str | None], list[Finding]], codes: Iterable[str]
) -> list[Finding]:
    """Return the findings that may explain one: those that are shown to, then those of these codes."""
    if finding.explains:
        return []
    places = (_ANY,) if finding.layer is None else (finding.layer, None)
    there = [cause for (_, place), causes in known.items() if place in places for cause in causes]
    shown = [cause for cause in there if finding.code in cause.explains]
    return shown + [
        cause
        for code in codes
        for place in places
        for cause in known.get((code, place), ())
        if cause is not finding and cause not in shown
    ]


def _weight(finding: Finding, order: tuple[int, float] = OPEN) -> tuple[object, ...]:
    broken_codebook = finding.code == NON_FINITE and finding.layer is not None
    return (
        not broken_codebook,
        order,
        -finding.severity,
        finding.stage,
        -finding.confidence,
        finding.code,
        finding.layer or "",
    )


def experiment(evidence: Iterable[Evidence]) -> str:
    """Return the flags for the evidence that is still missing to decide between rival causes.

    The experiments decide. A bare file and dumped vectors lack the model for them, or, where the file names a
    built-in task, its data. They train as the user does where the weight of the VQ loss is known. After them
    the answer is "".
    """
    items = tuple(evidence)
    kinds = {type(item) for item in items}
    weightless = any(isinstance(item, LossBalance) and item.vq_weight is None for item in items)
    weight = "--trained-vq-weight W" if weightless else ""
    if kinds & {Experiments, Trace}:
        return weight
    if GradientPath in kinds:
        return f"{weight} --decide".strip()
    if was_run(items):  # no VQ layer is seen at work: no experiment can be run, and no task is lacking
        return weight
    built_in = any(isinstance(item, TrainingRecord) and item.task for item in items)
    return f"{DATA if built_in else '--task FILE.py:NAME'} --decide"
