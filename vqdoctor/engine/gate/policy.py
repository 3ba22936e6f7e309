"""The policy of the gate: what is asserted, held against what a report says, and what that comes to.

A threshold is compared with an interval, never with a point: where the interval lies on the right side
it passes, where it lies on the wrong side it fails, and else it is inconclusive, as is a figure that
nothing tells, or that fewer independent vectors than codes tell. A finding at or above the bar fails
the gate too, unless it was there before, or an assertion states another limit for what it measures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from vqdoctor.checks import _usage as usage_limits
from vqdoctor.core.assertion import METRICS, Assertion, GateRules, Metric, Relation, Threshold
from vqdoctor.core.errors import UserError, suggestion
from vqdoctor.core.finding import Finding
from vqdoctor.core.gate import Gate, Judgement
from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.engine.gate.baseline import compared, counterpart, path_of
from vqdoctor.engine.gate.figures import Unknown, figure
from vqdoctor.engine.gate.hold import Held, compare, held_against

COLLAPSE = "VQ501"
REPLACES = {"perplexity": COLLAPSE, "usage": "VQ502", "dead": "VQ502", "ece": "VQ603"}
"""The check whose limit an assertion on a metric takes the place of."""
NOT_CONVERGED = "VQ302"
"""Says of EMA counts that they do not tell the usage yet: no proof of a failure."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """All that a gate was told.

    Attributes:
        rules: what is asserted.
        bar: the severity from which a finding fails the gate; None if none does.
        limits: changed limits of checks, by code and name.
        baseline: the reports to compare with; empty is no comparison.
        known: reports whose findings and failures are silenced.
    """

    rules: GateRules = field(default_factory=GateRules)
    bar: Severity | None = Severity.ERROR
    limits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    baseline: tuple[Report, ...] = ()
    known: tuple[Report, ...] = ()


def require_known_layers(rules: GateRules, reports: Sequence[Report]) -> None:
    """Make sure that every layer that an assertion names is there, where there are layers at all.

    Raises:
        UserError: if one is not; the message lists those that are.
    """
    for assertion in rules.assertions:
        for report in reports:
            names = [layer.name for layer in report.layers]
            if assertion.layer and names and not any(assertion.is_about(name) for name in names):
                where = f"{path_of(report)}: there is no VQ layer {assertion.layer}"
                raise UserError(where, suggestion(assertion.layer, names))


def hold(report: Report, policy: Policy) -> tuple[Held, ...]:
    """Hold every assertion against a report, on every layer that it is about."""
    return (*_obstacles(report), *_asserted(report, policy), *compared(report, policy.baseline, policy.rules))


def decide(report: Report, held: Sequence[Held], policy: Policy) -> Gate:
    """Return what a gate says of a report, given its judgements."""
    judgements = tuple(item.judgement for item in held)
    before = counterpart(report, policy.known) if policy.known else None
    hidden = [f.fingerprint for f in report.findings if before and _was_found(f, before)]
    failed: dict[str, bool] = {}
    for judgement in judgements:
        if judgement.status == "fail":
            # Two thresholds on one metric share a fingerprint: it is hidden where both failed before.
            known = before is not None and _failed_before(judgement, before, policy)
            failed[judgement.fingerprint] = known and failed.get(judgement.fingerprint, True)
    hidden += [fingerprint for fingerprint, known in failed.items() if known]
    failing = [f for f in report.findings if _fails(f, report, judgements, hidden, policy)]
    codes = [f.fingerprint for f in failing if f.fingerprint not in hidden]
    return Gate.of(judgements, hidden=hidden, failing=codes)


def _obstacles(report: Report) -> Iterator[Held]:
    """Yield what forbids a pass, whatever is asserted."""
    crashed = [outcome for outcome in report.outcomes if outcome.status == "crashed"]
    if crashed:
        names = ", ".join(dict.fromkeys(outcome.code for outcome in crashed))
        yield _obstacle(
            "crashed", "<=", 0, len(crashed), f"{names} crashed, so what they look for is unknown"
        )
    if not report.layers:
        yield _obstacle("layers", ">=", 1, 0, "no VQ layer was found: --codebook-key KEY names the codebook")


def _obstacle(metric: str, relation: Relation, threshold: float, value: float, reason: str) -> Held:
    return Held(
        judgement=Judgement(
            metric=metric,
            layer=None,
            relation=relation,
            threshold=threshold,
            value=value,
            low=value,
            high=value,
            status="inconclusive",
            level="error",
            reason=reason,
        )
    )


def _asserted(report: Report, policy: Policy) -> Iterator[Held]:
    """Yield the assertions; where neither one nor the baseline can fail, that no codebook has collapsed."""
    rules = policy.rules
    for assertion in rules.assertions:
        metric = METRICS[assertion.metric]
        if not metric.by_layer:
            yield _judge(report, assertion, metric, None, assertion.threshold.value, rules)
            continue
        for layer in report.layers:
            if assertion.is_about(layer.name):
                threshold = assertion.threshold.of(layer.num_codes)
                held = _judge(report, assertion, metric, layer.name, threshold, rules)
                if assertion.relation == ">=" and not metric.share and threshold > layer.num_codes:
                    reason = f"{held.judgement.reason}; {layer.num_codes:,} codes can never reach it"
                    held = replace(held, judgement=replace(held.judgement, reason=reason))
                yield held
    if not _has_errors(rules):
        metric = METRICS["perplexity"]
        assertion = Assertion(metric=metric.name, relation=metric.better, threshold=Threshold(value=0))
        with_baseline = _layers_to_compare(report, policy)
        changed = policy.limits.get(COLLAPSE, {})
        limits = {name: value for name, value in changed.items() if name in ("codes", "share", "floor")}
        for layer in report.layers:
            if layer.name in with_baseline:
                continue
            least = usage_limits.least_perplexity(layer.num_codes, **limits)
            yield _judge(report, assertion, metric, layer.name, least, rules)


def _layers_to_compare(report: Report, policy: Policy) -> set[str]:
    """Return the layers that are held against the baseline: those that it has, or all where it is unclear."""
    if not policy.baseline:
        return set()
    baseline = counterpart(report, policy.baseline)
    return {layer.name for layer in (baseline or report).layers}


def _judge(
    report: Report,
    assertion: Assertion,
    metric: Metric,
    layer: str | None,
    threshold: float,
    rules: GateRules,
) -> Held:
    found = figure(report, metric, layer)
    judgement = Judgement(
        metric=metric.name,
        layer=layer,
        relation=assertion.relation,
        threshold=threshold,
        value=None,
        low=None,
        high=None,
        status="inconclusive",
        level="warn" if assertion.level == "warn" else "error",
        reason=found.reason if isinstance(found, Unknown) else "",
    )
    return Held(judgement=judgement) if isinstance(found, Unknown) else held_against(judgement, found, rules)


def _fails(
    finding: Finding, report: Report, judgements: Sequence[Judgement], hidden: Sequence[str], policy: Policy
) -> bool:
    """Whether a finding fails the gate, known or not."""
    if policy.bar is None or finding.severity < policy.bar:
        return False
    # What is silenced holds nothing, and an upper end of what should be large asks for no least.
    silent = {j.metric for j in judgements if j.layer == finding.layer and j.fingerprint in hidden}
    replaced = any(
        REPLACES.get(a.metric) == finding.code
        and (a.level, a.relation) == ("error", METRICS[a.metric].better)
        and a.metric not in silent
        and (not METRICS[a.metric].by_layer or (finding.layer is not None and a.is_about(finding.layer)))
        for a in policy.rules.assertions
    )
    return not replaced and not _only_says_unknown(finding, report, judgements)


def _only_says_unknown(finding: Finding, report: Report, judgements: Sequence[Judgement]) -> bool:
    """Whether a finding is why the usage is unknown, which the gate has called inconclusive already."""
    root = finding.explained_by or finding.fingerprint
    return (
        root.partition(":")[0] == NOT_CONVERGED
        and finding.layer is not None
        and not report.usages(finding.layer)
        and any(
            j.layer == finding.layer and (j.status, j.level) == ("inconclusive", "error") for j in judgements
        )
    )


def _was_found(finding: Finding, before: Report) -> bool:
    """Whether a finding was there before, and no less severe."""
    same = (f for f in before.findings if f.fingerprint == finding.fingerprint)
    return any(f.severity >= finding.severity for f in same)


def _failed_before(judgement: Judgement, before: Report, policy: Policy) -> bool:
    """Whether what fails now failed before, or would have failed this threshold then."""
    relation, threshold = judgement.relation, judgement.threshold
    for then in before.gate.judgements if before.gate else ():
        if (then.fingerprint, then.relation, then.status) == (judgement.fingerprint, relation, "fail"):
            stricter = compare(then.threshold, then.threshold, relation, threshold) == "fail"
            interval = then.low is not None and then.high is not None and (then.low, then.high)
            if (
                stricter
                or then.threshold == threshold
                or (interval and compare(*interval, relation, threshold) == "fail")
            ):
                return True
    # What is asserted by default is the limit of the collapse check.
    default = not _has_errors(policy.rules) and judgement.baseline is None
    collapsed = f"{COLLAPSE}:{judgement.layer}"
    return (
        default
        and judgement.metric == "perplexity"
        and any(f.fingerprint == collapsed and f.severity >= Severity.ERROR for f in before.findings)
    )


def _has_errors(rules: GateRules) -> bool:
    """Whether anything is asserted that fails the gate."""
    return any(assertion.level == "error" for assertion in rules.assertions)
