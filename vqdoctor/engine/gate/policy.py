"""The policy of the gate: what is asserted, held against what a report says, and what that comes to.

A threshold is compared with an interval, never with a point: where the interval lies on the right side
it passes, where it lies on the wrong side it fails, and else it is inconclusive, as is a figure that
nothing tells, or that fewer independent vectors than codes tell. A finding at or above the bar fails
the gate too, unless it was there before, or an assertion states another limit for what it measures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from vqdoctor.checks import _usage as usage_limits
from vqdoctor.core.assertion import MAX_DROP, METRICS, Assertion, GateRules, Metric, Relation, Threshold
from vqdoctor.core.errors import UserError, suggestion
from vqdoctor.core.finding import Finding
from vqdoctor.core.gate import Gate, GateStatus, Judgement
from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.engine.gate.figures import Figure, Unknown, figure, sources

COLLAPSE = "VQ501"
REPLACES = {"perplexity": COLLAPSE, "usage": "VQ502", "dead": "VQ502", "ece": "VQ603"}
"""The check whose limit an assertion on a metric takes the place of."""
NOT_CONVERGED = "VQ302"
"""Says of EMA counts that they do not tell the usage yet: no proof of a failure."""
COMPARED = ("perplexity", "usage", "accuracy")
"""The metrics that are held against a baseline."""
FARTHEST = 1000
"""Times as much data as there is, beyond which more data is no advice."""


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


@dataclass(frozen=True, kw_only=True)
class Held:
    """An assertion held against one report: the judgement, and the interval that it can rest on.

    Attributes:
        judgement: what came out.
        low: lower end of what is known; -inf where nothing is.
        high: upper end of what is known; inf where nothing is.
    """

    judgement: Judgement
    low: float = -math.inf
    high: float = math.inf


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
    return (*_obstacles(report), *_asserted(report, policy), *_compared(report, policy))


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


def path_of(report: Report) -> str:
    """Return the path of the file that a report is about; "" for a live model."""
    return report.checkpoint.path if report.checkpoint else ""


def compare(low: float, high: float, relation: Relation, threshold: float) -> GateStatus:
    """Compare an interval with a threshold."""
    if relation == "<=":
        low, high, threshold = -high, -low, -threshold
    if low >= threshold:
        return "pass"
    return "fail" if high < threshold else "inconclusive"


def settle(
    status: GateStatus, reason: str, straddling: Literal["pass", "fail"] | None
) -> tuple[GateStatus, str]:
    """Return what an interval that straddles its threshold counts as."""
    if status != "inconclusive" or straddling is None:
        return status, reason
    return straddling, f"{reason}; undecided, which counts as a {straddling} here"


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
                    held = _adding(held, f"{layer.num_codes:,} codes can never reach it")
                yield held
    if not _has_errors(rules):
        metric = METRICS["perplexity"]
        assertion = Assertion(metric=metric.name, relation=metric.better, threshold=Threshold(value=0))
        compared = _layers_to_compare(report, policy)
        for layer in report.layers:
            if layer.name in compared:
                continue
            least = usage_limits.least_perplexity(layer.num_codes, **_collapse_limits(policy))
            yield _judge(report, assertion, metric, layer.name, least, rules)


def _layers_to_compare(report: Report, policy: Policy) -> set[str]:
    """Return the layers that are held against the baseline: those that it has, or all where it is unclear."""
    if not policy.baseline:
        return set()
    baseline = counterpart(report, policy.baseline)
    return {layer.name for layer in (baseline or report).layers}


def _collapse_limits(policy: Policy) -> dict[str, float]:
    changed = policy.limits.get(COLLAPSE, {})
    return {name: value for name, value in changed.items() if name in ("codes", "share", "floor")}


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
    return Held(judgement=judgement) if isinstance(found, Unknown) else _held(judgement, found, rules)


def _adding(held: Held, remark: str) -> Held:
    reason = f"{held.judgement.reason}; {remark}"
    return replace(held, judgement=replace(held.judgement, reason=reason))


def _held(judgement: Judgement, found: Figure, rules: GateRules) -> Held:
    """Fill in the figure of a judgement, and compare."""
    relation, threshold = judgement.relation, judgement.threshold
    side = "at least" if relation == ">=" else "at most"
    against = f"{side} {shown(threshold, judgement.metric)}"
    if judgement.baseline is not None:
        against += f", from {shown(judgement.baseline, judgement.metric)} in the baseline"
    value, low, high = (shown(x, judgement.metric) for x in (found.value, found.low, found.high))
    reason = f"{value} [{low}–{high}] from {found.origin}, against {against}"
    judgement = replace(judgement, value=found.value, low=found.low, high=found.high)
    if found.shortage:
        return Held(judgement=replace(judgement, reason=f"{reason}; {found.shortage}"))
    status = compare(found.low, found.high, relation, threshold)
    if status == "inconclusive":
        reason = f"{reason}; {_what_it_takes(found, threshold)}"
    status, reason = settle(status, reason, rules.inconclusive)
    return Held(judgement=replace(judgement, status=status, reason=reason), low=found.low, high=found.high)


def _what_it_takes(found: Figure, threshold: float) -> str:
    """How much more data would part the interval from its threshold: its width falls with the root of N."""
    if not found.grows:
        return "too close to tell; --data BATCH would tell more"
    half = found.value - found.low if found.value >= threshold else found.high - found.value
    distance = abs(found.value - threshold)
    times = (half / distance) ** 2 if distance else math.inf
    if times > FARTHEST:
        return "too close to tell on any amount of data"
    more = max(1, math.ceil(times - 1))
    if more == 1:
        return "too close to tell; one more batch like this one may do"
    return f"too close to tell; about {more:,} more {found.grows} would do"


def _compared(report: Report, policy: Policy) -> Iterator[Held]:
    """Yield the metrics that may not fall far below those of the baseline."""
    if not policy.baseline:
        return
    baseline = counterpart(report, policy.baseline)
    kept = 1 - (policy.rules.max_drop if policy.rules.max_drop is not None else MAX_DROP)
    for name in COMPARED:
        metric = METRICS[name]
        places = [layer.name for layer in report.layers] if metric.by_layer else [None]
        for place in places:
            held = _against(report, baseline, metric, place, kept, policy.rules)
            if held:
                yield held
    if baseline is not None:
        here = {layer.name for layer in report.layers}
        if here and not baseline.layers:
            none = "nothing to compare: the baseline has no VQ layer"
            yield Held(judgement=_drop_judgement(METRICS["perplexity"], None, 0.0, 0.0, none))
        for layer in baseline.layers:
            if here and layer.name not in here:
                gone = f"the baseline has a VQ layer {layer.name}, which is not here"
                yield Held(judgement=_drop_judgement(METRICS["perplexity"], layer.name, 0.0, 0.0, gone))


def _against(
    report: Report,
    baseline: Report | None,
    metric: Metric,
    layer: str | None,
    kept: float,
    rules: GateRules,
) -> Held | None:
    """Hold a figure against that of the baseline; None where neither knows it, or the layer is new."""
    here = sources(report, layer)
    there = sources(baseline, layer) if baseline else ()
    if baseline is not None and layer and layer not in [known.name for known in baseline.layers]:
        return None
    both = [source for source in here if source in there]
    if not both:
        if layer is None or metric is not METRICS["perplexity"]:
            return None
        why = "the baseline has no report of this file"
        if baseline is not None:
            ways = f"from the {here[0] if here else 'nothing'} here, {there[0] if there else 'nothing'} there"
            why = f"nothing to compare: usage is known {ways}"
        return Held(judgement=_drop_judgement(metric, layer, 0.0, 0.0, why))
    assert baseline is not None
    new, old = (figure(told, metric, layer, both[0]) for told in (report, baseline))
    if isinstance(new, Unknown) or isinstance(old, Unknown):
        if metric is METRICS["accuracy"]:
            return None
        why = new.reason if isinstance(new, Unknown) else old.reason if isinstance(old, Unknown) else ""
        return Held(judgement=_drop_judgement(metric, layer, 0.0, 0.0, why))
    # The interval of new - kept * old from those of both (MOVER: Zou and Donner 2008), around the new.
    down = math.hypot(new.value - new.low, kept * (old.high - old.value))
    up = math.hypot(new.high - new.value, kept * (old.value - old.low))
    short = new.shortage or (f"the baseline: {old.shortage}" if old.shortage else "")
    low, high = (
        max(0.0, new.value - down),
        new.value + up,
    )  # a figure under 0 would puzzle, and decides nothing
    high = min(high, 1.0) if metric.share else high
    origin = f"{new.origin}, in the doubt of the baseline too"
    widened = replace(new, low=low, high=high, shortage=short, origin=origin)
    judgement = _drop_judgement(metric, layer, kept * old.value, old.value, "")
    return _held(judgement, widened, rules)


def _drop_judgement(
    metric: Metric, layer: str | None, threshold: float, baseline: float, reason: str
) -> Judgement:
    return Judgement(
        metric=metric.name,
        layer=layer,
        relation=">=",
        threshold=threshold,
        value=None,
        low=None,
        high=None,
        status="inconclusive",
        level="error",
        reason=reason,
        baseline=baseline,
    )


def counterpart(report: Report, others: Sequence[Report]) -> Report | None:
    """Return the report among `others` that is about the same file; a single one always is."""
    if len(others) == 1:
        return others[0]
    path = path_of(report)
    same = [other for other in others if path_of(other) == path]
    same = same or [other for other in others if _name(other) == _name(report)]
    return same[0] if len(same) == 1 else None


def _name(report: Report) -> str:
    return path_of(report).replace("\\", "/").rpartition("/")[2]


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


def shown(value: float, metric: str) -> str:
    """Return a figure of a metric as people read it."""
    if metric in METRICS and METRICS[metric].percent:
        return f"{100 * value:.4g}%"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
