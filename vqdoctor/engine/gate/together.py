"""Several reports as one: the median or the worst of their figures is compared with the threshold.

Each figure lies in its own interval, and the median and the least of several grow with each of them: so
they lie between the median, or the least, of the lower ends and that of the upper ends.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from vqdoctor.core.assertion import Aggregate
from vqdoctor.core.gate import Gate, Judgement
from vqdoctor.core.report import Report
from vqdoctor.engine.gate.hold import Held, compare, settle, shown
from vqdoctor.engine.gate.policy import Policy, decide, hold

Key = tuple[object, ...]


def gate_together(reports: Sequence[Report], how: Aggregate, policy: Policy) -> list[Gate]:
    """Return the gate of each report, in which the judgements over all reports decide.

    A report's own judgements are there too, as warnings. Under the median a finding fails the gate
    where more than half of the reports have it.
    """
    each = [hold(report, policy) for report in reports]
    groups: dict[Key, list[Held]] = {}
    for held in each:
        for item in held:
            if not _is_obstacle(item):
                groups.setdefault(_key(item.judgement), []).append(item)
    joint = {key: _joint(items, how, policy) for key, items in groups.items()}
    gates = []
    for report, held in zip(reports, each, strict=True):
        own: list[Held] = []
        shared: list[Held] = []
        for item in held:
            if _is_obstacle(item):
                own.append(item)
            else:
                own.append(Held(judgement=replace(item.judgement, level="warn")))
                shared.append(Held(judgement=joint[_key(item.judgement)]))
        gates.append(decide(report, [*own, *shared], policy))
    if how != "median":
        return gates
    counted = Counter(fingerprint for gate in gates for fingerprint in gate.failing)
    return [
        Gate.of(
            gate.judgements,
            hidden=gate.hidden,
            failing=[name for name in gate.failing if 2 * counted[name] > len(gates)],
        )
        for gate in gates
    ]


def _is_obstacle(item: Held) -> bool:
    return item.judgement.metric in ("layers", "crashed")


def _key(judgement: Judgement) -> Key:
    j = judgement
    return (j.metric, j.layer, j.relation, j.threshold, j.baseline is None, j.level)


def _joint(items: Sequence[Held], how: Aggregate, policy: Policy) -> Judgement:
    """Judge the median or the worst of one assertion's figures."""
    first = items[0].judgement
    worst: Callable[..., float] = min if first.relation == ">=" else max
    pick = _median if how == "median" else worst
    values = [item.judgement.value for item in items if item.judgement.value is not None]
    low, high = pick([item.low for item in items]), pick([item.high for item in items])
    status = compare(low, high, first.relation, first.threshold)
    told = [shown(value, first.metric) for value in values] + ["unknown"] * (len(items) - len(values))
    side = "at least" if first.relation == ">=" else "at most"
    reason = f"the {how} of {', '.join(told)}, against {side} {shown(first.threshold, first.metric)}"
    if status == "inconclusive" and math.isfinite(low) and math.isfinite(high):
        status, reason = settle(status, reason, policy.rules.inconclusive)
    elif status == "inconclusive":
        reason += "; too few of these figures are known well enough"
    return replace(
        first,
        value=pick(values) if values else None,
        low=low if math.isfinite(low) else None,
        high=high if math.isfinite(high) else None,
        status=status,
        reason=reason,
        aggregate=how,
    )


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    below, above = ordered[(len(values) - 1) // 2], ordered[len(values) // 2]
    return below if below == above else (below + above) / 2  # two infinities of one sign are their own mean
