"""The decision of the experiments: the weight of each cause found, and a cause that they alone show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from vqdoctor.core.check import Check
from vqdoctor.core.evidence import Evidence
from vqdoctor.core.experiments import GAIN, REMOVALS, SHOWN, USED, WITHOUT, Effect, effects
from vqdoctor.core.finding import Finding, Measurement
from vqdoctor.core.frozen import frozen
from vqdoctor.core.levels import Confidence, Severity, Stage
from vqdoctor.core.undecided import CAUSES_IN_USE
from vqdoctor.engine.evaluate import Evaluated

PROVEN = frozenset({"VQ101", "VQ102"})
"""Gradients that are cut show exactly: whatever the experiments say, they keep their place."""
SETTLED = PROVEN | {"VQ103", "VQ105", "VQ110", "VQ309", "VQ405", "VQ901"}
"""Causes that a measurement proves exactly: beside one of them no further cause is looked for."""
OPEN = (1, 0.0)
"""The order of a finding that no experiment says anything of."""
GAINED = "experiment_gain"
"""The measurement of a finding that says what an experiment showed of it."""


@frozen
class Weighed:
    """A finding with what the experiments say of it.

    Attributes:
        finding: the finding; its message says what its experiment showed, where that weighs.
        order: its place among the roots: first the proven and those whose removal helps, the most
            helpful first, then those that nothing tried, then those whose removal does nothing, then notes.
    """

    finding: Finding
    order: tuple[int, float] = OPEN


def weighed(
    findings: Sequence[Finding], explained_by: Mapping[str, Sequence[str]], evidence: Sequence[Evidence]
) -> list[Weighed]:
    """Return the findings, each with the weight that the experiments on its layer give it.

    Args:
        findings: the findings of all checks.
        explained_by: code of a check to those of the causes of which it can be a symptom.
        evidence: their evidence.
    """
    causes: defaultdict[str | None, set[str]] = defaultdict(set)
    for finding in findings:
        if finding.severity > Severity.NOTE:
            causes[finding.layer].add(finding.code)
    found = {layer: effects(evidence, layer) for layer in {f.layer for f in findings}}
    weights = []
    for finding in findings:
        # what a finding may itself have caused is not its rival
        others = causes[finding.layer] | causes[None]
        rivals = {code for code in others if finding.code not in explained_by.get(code, ())}
        weights.append(_weighed(finding, rivals, found[finding.layer]))
    return weights


def _weighed(finding: Finding, rivals: set[str], found: Sequence[Effect]) -> Weighed:
    own = [e for e in found if finding.code in (*e.removal.codes, *e.removal.treats)]
    helping = max((e for e in own if e.helps), key=lambda e: e.strength, default=None)
    if finding.severity <= Severity.NOTE:
        return Weighed(finding=finding, order=(3, 0.0))
    if helping is not None:
        shown = any(m.name == GAINED for m in finding.measurements)
        said = finding if shown else _with(finding, helping, "An experiment agrees")
        if finding.code in helping.removal.treats:
            return Weighed(finding=said)
        sure = finding.confidence if shown else Confidence.HIGH
        return Weighed(finding=said.replace(confidence=sure), order=(0, -helping.strength))
    if found and finding.code in PROVEN:
        return Weighed(finding=finding, order=(0, -1.0))
    if not own or not any(e.helps and not rivals.isdisjoint(e.removal.codes) for e in found):
        return Weighed(finding=finding)
    said = _with(finding, own[0], "Another cause is likelier, since this one's removal does not help")
    lower = Confidence(max(finding.confidence - 1, Confidence.LOW))
    return Weighed(finding=said.replace(confidence=lower), order=(2, 0.0))


def separating(evaluated: Evaluated, checks: Sequence[Check]) -> tuple[str, ...]:
    """Return the names of the experiments that separate the suspects which an examination left.

    Suspects are the findings above a note, and what else may be behind a symptom unless its cause is proven:
    causes whose check could not judge, and causes that an experiment may show although their check passed. A
    comparison without VQ belongs to a symptom whose cause is open.
    """
    explained_by = {check.code: check.explained_by for check in checks}
    serious = [f for f in evaluated.findings if f.severity > Severity.NOTE]
    passed = {o.code for o in evaluated.outcomes if o.status == "passed"}
    passed -= {o.code for o in evaluated.outcomes if o.status != "passed"}
    unsure = {code for r in REMOVALS.values() for code in (*r.codes, *r.treats)} - passed
    unsure |= {removal.shows for removal in REMOVALS.values()}
    suspects = {f.code for f in serious}
    is_open = False
    for symptom in serious:
        measures = symptom.stage >= Stage.USAGE and symptom.code not in CAUSES_IN_USE
        if measures and not any(f.code in SETTLED and f.layer in (symptom.layer, None) for f in serious):
            suspects |= unsure.intersection(explained_by.get(symptom.code, ()))
            is_open = True
    return tuple(
        name
        for name, removal in REMOVALS.items()
        if (is_open if name == WITHOUT else suspects.intersection((*removal.codes, *removal.treats)))
    )


def with_shown(evaluated: Evaluated, checks: Sequence[Check], evidence: Sequence[Evidence]) -> Evaluated:
    """Add the cause that no measurement found where taking it away helps a layer of poor usage the most."""
    findings, outcomes = list(evaluated.findings), list(evaluated.outcomes)
    by_code = {check.code: check for check in checks}
    poor = [f for f in findings if f.stage is Stage.USAGE and f.severity > Severity.NOTE and f.layer]
    for layer in dict.fromkeys(f.layer for f in poor):
        # where placed codes help, the others are what helps beyond that
        tried = (e for e in effects(evidence, layer) if e.removal.codes and not e.removal.treats)
        helping = [e for e in tried if e.helps]
        best = max(helping, key=lambda e: e.strength, default=None)
        known = [f for f in findings if f.layer in (layer, None) and f.severity > Severity.NOTE]
        if best is None or best.gain < SHOWN or best.removal.shows not in by_code:
            continue
        if {f.code for f in known} & {*best.removal.codes, *PROVEN}:
            continue
        check = by_code[best.removal.shows]
        shown = _shown(check, None if check.scope == "model" else layer, best)
        findings = [f for f in findings if f.fingerprint != shown.fingerprint] + [shown]
        outcomes = [
            replace(o, status="found", reason=None) if (o.code, o.layer) == (shown.code, shown.layer) else o
            for o in outcomes
        ]
    return Evaluated(findings=tuple(findings), outcomes=tuple(outcomes))


def _shown(check: Check, layer: str | None, effect: Effect) -> Finding:
    return Finding(
        code=check.code,
        name=check.name,
        stage=check.stage,
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM,
        layer=layer,
        message=f"No measurement shows it, and an experiment does: {effect.told}.",
        measurements=(_gained(effect),),
        remedies=check.remedy_names,
    )


def _with(finding: Finding, effect: Effect, words: str) -> Finding:
    return finding.replace(
        message=f"{finding.message} {words}: {effect.told}.",
        measurements=(*finding.measurements, _gained(effect)),
    )


def _gained(effect: Effect) -> Measurement:
    if effect.helps and effect.gain < GAIN:
        return Measurement(name="experiment_perplexity_factor", value=effect.factor, limit=USED)
    return Measurement(name=GAINED, value=effect.gain, limit=GAIN)
