"""The policy of the gate: assertions are compared with a report, and its gate is decided.

A threshold is compared with an interval, never with a point: an interval on the right side passes, one on
the wrong side fails, and any other is inconclusive, as is a figure that is unknown, or that rests on fewer
independent vectors than codes. A finding at or above the bar fails the gate too, unless it was there before,
or an assertion states another limit for its metric.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace

from vqdoctor.checks import _usage as usage_limits
from vqdoctor.core.assertion import METRICS, Assertion, GateRules, Threshold
from vqdoctor.core.errors import UserError, suggestion
from vqdoctor.core.finding import Finding
from vqdoctor.core.frozen import frozen
from vqdoctor.core.gate import Gate, Judgement
from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.engine.gate.baseline import compared, counterpart, path_of
from vqdoctor.engine.gate.figures import figure
from vqdoctor.engine.gate.hold import Held, certain, compare, judged

COLLAPSE = "VQ501"
REPLACES = {"perplexity": COLLAPSE, "usage": "VQ502", "dead": "VQ502", "ece": "VQ603"}
"""The check whose limit an assertion on a metric replaces."""
COLLAPSE_LIMITS = ("codes", "share", "floor")
"""The limits of that check of which the least perplexity is made."""
NOT_CONVERGED = "VQ302"
"""Finds EMA counts that do not show the usage yet, which is not a proof of a failure."""


@frozen
class Policy:
    """The user's settings of a gate.

    Attributes:
        rules: the assertions.
        bar: the severity from which a finding fails the gate; None if none does.
        limits: changed limits of checks, by code and name.
        baseline: the reports to compare with; empty without a comparison.
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
        UserError: if one is not; the message lists the known layers.
    """
    for assertion in rules.assertions:
        for report in reports:
            names = [layer.name for layer in report.layers]
            if assertion.layer and names and not any(assertion.is_about(name) for name in names):
                where = f"{path_of(report)}: there is no VQ layer {assertion.layer}"
                raise UserError(where, suggestion(assertion.layer, names))


def hold(report: Report, policy: Policy) -> tuple[Held, ...]:
    """Compare every assertion with a report, on every layer that it is about."""
    return (*_obstacles(report), *_asserted(report, policy), *compared(report, policy.baseline, policy.rules))


def decide(report: Report, held: Sequence[Held], policy: Policy) -> Gate:
    """Return the gate of a report, given its judgements."""
    judgements = tuple(item.judgement for item in held)
    before = counterpart(report, policy.known) if policy.known else None
    found_before = [(f.fingerprint, f.severity) for f in before.findings] if before else []
    hidden = [
        finding.fingerprint
        for finding in report.findings
        if any(name == finding.fingerprint and worst >= finding.severity for name, worst in found_before)
    ]
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
    """Yield the facts that forbid a pass, whatever is asserted."""
    crashed = [outcome.code for outcome in report.outcomes if outcome.status == "crashed"]
    if crashed:
        reason = f"{', '.join(dict.fromkeys(crashed))} crashed, so their results are unknown"
        yield Held(judgement=certain("crashed", "<=", 0, len(crashed), reason))
    if not report.layers:
        task = "--task FILE.py:NAME runs the model, which shows a layer without a codebook, such as FSQ; "
        key = "--codebook-key KEY names a codebook"
        reason = f"no VQ layer was found: {'' if report.runs_model else task}{key}"
        yield Held(judgement=certain("layers", ">=", 1, 0, reason))


def _asserted(report: Report, policy: Policy) -> Iterator[Held]:
    """Yield the assertions; where neither one nor the baseline can fail, that no codebook has collapsed."""
    for assertion in policy.rules.assertions:
        metric = METRICS[assertion.metric]
        if not metric.by_layer:
            yield _asserted_on(report, assertion, None, assertion.threshold.value, policy)
            continue
        for layer in report.layers:
            if assertion.is_about(layer.name):
                threshold = assertion.threshold.of(layer.num_codes)
                held = _asserted_on(report, assertion, layer.name, threshold, policy)
                if assertion.relation == ">=" and not metric.share and threshold > layer.num_codes:
                    reason = f"{held.judgement.reason}; {layer.num_codes:,} codes can never reach it"
                    held = replace(held, judgement=replace(held.judgement, reason=reason))
                yield held
    if _has_errors(policy.rules):
        return
    assertion = Assertion(
        metric="perplexity", relation=METRICS["perplexity"].better, threshold=Threshold(value=0)
    )
    limits = {
        name: value for name, value in policy.limits.get(COLLAPSE, {}).items() if name in COLLAPSE_LIMITS
    }
    with_baseline: set[str] = set()
    if policy.baseline:  # all layers where it is unclear which report is the baseline
        with_baseline = {layer.name for layer in (counterpart(report, policy.baseline) or report).layers}
    for layer in report.layers:
        if layer.name not in with_baseline:
            least = usage_limits.least_perplexity(layer.num_codes, **limits)
            yield _asserted_on(report, assertion, layer.name, least, policy)


def _asserted_on(
    report: Report, assertion: Assertion, layer: str | None, threshold: float, policy: Policy
) -> Held:
    judgement = Judgement(
        metric=assertion.metric,
        layer=layer,
        relation=assertion.relation,
        threshold=threshold,
        level="warn" if assertion.level == "warn" else "error",
    )
    return judged(judgement, figure(report, METRICS[assertion.metric], layer), policy.rules)


def _fails(
    finding: Finding, report: Report, judgements: Sequence[Judgement], hidden: Sequence[str], policy: Policy
) -> bool:
    """Whether a finding fails the gate, known or not."""
    if policy.bar is None or finding.severity < policy.bar:
        return False
    # A silenced assertion replaces no check, and neither does an upper bound where more is better.
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


def _failed_before(judgement: Judgement, before: Report, policy: Policy) -> bool:
    """Whether a failed judgement failed before, or would have failed this threshold then."""
    relation, threshold = judgement.relation, judgement.threshold
    for then in before.gate.judgements if before.gate else ():
        if (then.fingerprint, then.relation, then.status) == (judgement.fingerprint, relation, "fail"):
            stricter = compare(then.threshold, then.threshold, relation, threshold) == "fail"
            if stricter or then.threshold == threshold:
                return True
            if then.low is None or then.high is None:
                continue
            if compare(then.low, then.high, relation, threshold) == "fail":
                return True
    # Without assertions the limit of the collapse check is the threshold.
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
