"""Comparing one assertion with one figure: an interval with a threshold, and the reason in words."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

from vqdoctor.core.assertion import METRICS, GateRules, Relation
from vqdoctor.core.frozen import frozen
from vqdoctor.core.gate import GateStatus, Judgement
from vqdoctor.engine.gate.figures import Figure, Unknown

FARTHEST = 1000
"""Times as much data as there is, beyond which more data is not advised."""


@frozen
class Held:
    """The judgement of an assertion on one report, and the interval that it can rest on.

    Attributes:
        judgement: the judgement.
        low: lower end of the interval; -inf where it is unknown.
        high: upper end of the interval; inf where it is unknown.
    """

    judgement: Judgement
    low: float = -math.inf
    high: float = math.inf


def certain(metric: str, relation: Relation, threshold: float, value: float, reason: str) -> Judgement:
    """Return the judgement of a count of the whole report, such as its layers, which has no uncertainty."""
    open_ = Judgement(metric=metric, layer=None, relation=relation, threshold=threshold, reason=reason)
    return replace(open_, value=value, low=value, high=value)


def judged(judgement: Judgement, found: Figure | Unknown, rules: GateRules) -> Held:
    """Fill in the figure of a judgement, and compare."""
    if isinstance(found, Unknown):
        return Held(judgement=replace(judgement, reason=found.reason))
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
        reason = f"{reason}; {_more_data(found, threshold)}"
    status, reason = settle(status, reason, rules.inconclusive)
    return Held(judgement=replace(judgement, status=status, reason=reason), low=found.low, high=found.high)


def _more_data(found: Figure, threshold: float) -> str:
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
    """Return the status and the reason of an interval, which may straddle its threshold."""
    if status != "inconclusive" or straddling is None:
        return status, reason
    return straddling, f"{reason}; undecided, which counts as a {straddling} here"


def shown(value: float, metric: str) -> str:
    """Return a figure of a metric as people read it."""
    if metric in METRICS and METRICS[metric].percent:
        return f"{100 * value:.4g}%"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
