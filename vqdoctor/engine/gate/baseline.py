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
from vqdoctor.engine.gate.hold import Held, held_against

COMPARED = ("perplexity", "usage", "accuracy")
"""The metrics that are held against a baseline."""
_FOLDERS = re.compile(r"[/\\]")


def compared(report: Report, baselines: Sequence[Report], rules: GateRules) -> Iterator[Held]:
    """Yield the metrics that may not fall far below those of the baseline; without one, nothing."""
    if not baselines:
        return
    baseline = counterpart(report, baselines)
    kept = 1 - (rules.max_drop if rules.max_drop is not None else MAX_DROP)
    for name in COMPARED:
        metric = METRICS[name]
        for layer_name in [layer.name for layer in report.layers] if metric.by_layer else [None]:
            held = _against(report, baseline, metric, layer_name, kept, rules)
            if held:
                yield held
    if baseline is not None:
        here = {layer.name for layer in report.layers}
        if here and not baseline.layers:
            none = "nothing to compare: the baseline has no VQ layer"
            yield Held(judgement=_drop(METRICS["perplexity"], None, 0.0, 0.0, none))
        for layer in baseline.layers:
            if here and layer.name not in here:
                gone = f"the baseline has a VQ layer {layer.name}, which is not here"
                yield Held(judgement=_drop(METRICS["perplexity"], layer.name, 0.0, 0.0, gone))


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
        return Held(judgement=_drop(metric, layer, 0.0, 0.0, why))
    assert baseline is not None
    new, old = (figure(told, metric, layer, both[0]) for told in (report, baseline))
    if isinstance(new, Unknown) or isinstance(old, Unknown):
        if metric is METRICS["accuracy"]:
            return None
        why = new.reason if isinstance(new, Unknown) else old.reason if isinstance(old, Unknown) else ""
        return Held(judgement=_drop(metric, layer, 0.0, 0.0, why))
    # The interval of new - kept * old from those of both (MOVER: Zou and Donner 2008), around the new.
    down = math.hypot(new.value - new.low, kept * (old.high - old.value))
    up = math.hypot(new.high - new.value, kept * (old.value - old.low))
    short = new.shortage or (f"the baseline: {old.shortage}" if old.shortage else "")
    low = max(0.0, new.value - down)  # a figure under 0 would puzzle, and decides nothing
    high = min(new.value + up, 1.0) if metric.share else new.value + up
    origin = f"{new.origin}, in the doubt of the baseline too"
    widened = replace(new, low=low, high=high, shortage=short, origin=origin)
    judgement = _drop(metric, layer, kept * old.value, old.value, "")
    return held_against(judgement, widened, rules)


def _drop(metric: Metric, layer: str | None, threshold: float, baseline: float, reason: str) -> Judgement:
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
