"""Comparing with a baseline: its report of the same file, and the figures that may not fall far below it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from vqdoctor.core.assertion import MAX_DROP, METRICS, GateRules, Metric
from vqdoctor.core.gate import Judgement
from vqdoctor.core.report import Report
from vqdoctor.engine.gate.figures import Unknown, figure, sources
from vqdoctor.engine.gate.hold import Held, judged

COMPARED = ("perplexity", "usage", "accuracy")
"""The metrics that are compared with a baseline."""
_FOLDERS = re.compile(r"[/\\]")


def compared(report: Report, baselines: Sequence[Report], rules: GateRules) -> Iterator[Held]:
    """Yield the metrics that may not fall far below the baseline's, where there is a baseline."""
    if not baselines:
        return
    baseline = counterpart(report, baselines)
    here = [layer.name for layer in report.layers]
    there = [layer.name for layer in baseline.layers] if baseline else []
    for name in COMPARED:
        for layer in here if METRICS[name].by_layer else [None]:
            if baseline is None or layer is None or layer in there:  # a new layer has no counterpart
                yield from _against(report, baseline, METRICS[name], layer, rules)
    if baseline is not None and here and not there:
        yield _incomparable("perplexity", None, "nothing to compare: the baseline has no VQ layer")
    for layer in there if here else ():
        if layer not in here:
            gone = f"the baseline has a VQ layer {layer}, which is not here"
            yield _incomparable("perplexity", layer, gone)


def _against(
    report: Report, baseline: Report | None, metric: Metric, layer: str | None, rules: GateRules
) -> Iterator[Held]:
    """Compare a figure with the baseline's; nothing comes of it where neither report has the figure."""
    here, there = sources(report, layer), sources(baseline, layer) if baseline else ()
    source = next((source for source in here if source in there), None)
    if baseline is None or source is None:
        if metric.name == "perplexity":
            why = "the baseline has no report of this file"
            if baseline is not None:
                ways = f"the {here[0] if here else 'nothing'} here, {there[0] if there else 'nothing'} there"
                why = f"nothing to compare: usage is known from {ways}"
            yield _incomparable(metric.name, layer, why)
        return
    new, old = (figure(told, metric, layer, source) for told in (report, baseline))
    for found in (new, old):
        if isinstance(found, Unknown):
            if metric.name != "accuracy":
                yield _incomparable(metric.name, layer, found.reason)
            return
    assert not isinstance(new, Unknown) and not isinstance(old, Unknown)
    kept = 1 - (rules.max_drop if rules.max_drop is not None else MAX_DROP)
    # The interval of new - kept * old from the two intervals (MOVER: Zou and Donner 2008), around the new.
    down = math.hypot(new.value - new.low, kept * (old.high - old.value))
    up = math.hypot(new.high - new.value, kept * (old.value - old.low))
    widened = replace(
        new,
        low=max(0.0, new.value - down),  # a figure under 0 would puzzle, and decides nothing
        high=min(new.value + up, 1.0) if metric.share else new.value + up,
        shortage=new.shortage or (f"the baseline: {old.shortage}" if old.shortage else ""),
        origin=f"{new.origin}, with the baseline's uncertainty",
    )
    yield judged(_drop(metric.name, layer, old.value, kept=kept), widened, rules)


def _incomparable(metric: str, layer: str | None, reason: str) -> Held:
    return Held(judgement=replace(_drop(metric, layer, 0.0), reason=reason))


def _drop(metric: str, layer: str | None, before: float, kept: float = 1.0) -> Judgement:
    return Judgement(metric=metric, layer=layer, relation=">=", threshold=kept * before, baseline=before)


def path_of(report: Report) -> str:
    """Return the path of the file that a report is about; "" for a live model."""
    return report.checkpoint.path if report.checkpoint else ""


def counterpart(report: Report, others: Sequence[Report]) -> Report | None:
    """Return the report among `others` that is about the same file; a single one always is."""
    if len(others) == 1:
        return others[0]
    path = path_of(report)
    same = [other for other in others if path_of(other) == path]
    name = _FOLDERS.split(path)[-1]
    same = same or [other for other in others if _FOLDERS.split(path_of(other))[-1] == name]
    return same[0] if len(same) == 1 else None
