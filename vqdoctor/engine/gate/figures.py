"""A report's figure of a metric with its 95 % interval, or the reason why there is none.

Vectors of one image or clip resemble each other. So this module counts independent vectors: as many as would
be equally informative. EMA counts do not show how alike the vectors were; `ASSUMED_EFFECT` stands in.
"""

from __future__ import annotations

import math
from dataclasses import replace

from vqdoctor.core.assertion import METRICS, Metric
from vqdoctor.core.evidence import EMA_COUNTS, SOURCES, Source, TaskMetrics, Usage
from vqdoctor.core.frozen import frozen
from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.metrics.interval import TAIL, Z, share_interval

ASSUMED_EFFECT = 8.0
"""Vectors of EMA counts that are taken for one independent one. It is the design effect 1 + 63/9 of images of
64 vectors of which two share their code in one case of nine more than those of two images."""
REFUTES = "VQ303"
"""Finds EMA counts that are not those of the codebook: the sums over counts are other codes."""
PLENTY = 16
"""Independent vectors per code from which perplexity is known to about 3 %, whatever the usage looks like."""
LEAST_SAMPLES = 4
"""Samples from which quarters of them can be compared with all, as the interval's bias check does. Two or
three that happen to be alike, such as one image twice, look like independent vectors."""


@frozen
class Figure:
    """A measured figure.

    Attributes:
        value: the figure.
        low: lower end of its 95 % interval.
        high: upper end of its 95 % interval.
        origin: its source, as the end of a sentence ("from 28,752 vectors of 1,797 samples").
        shortage: why a verdict cannot rest on it, and the data that it takes; "" where a verdict can.
        grows: the data that would narrow the interval ("batches like this one"); "" for EMA counts.
    """

    value: float
    low: float
    high: float
    origin: str
    shortage: str = ""
    grows: str = ""


@frozen
class Unknown:
    """Why a report has no such figure, and what would help."""

    reason: str


def figure(
    report: Report, metric: Metric, layer: str | None, source: Source | None = None
) -> Figure | Unknown:
    """Return a report's figure of a metric, on a layer or on the whole model, from its best source.

    Args:
        report: the report.
        metric: one of `METRICS`.
        layer: the VQ layer of a metric that every layer has; else None.
        source: the only source to take it from; None is the best.
    """
    if layer is None:
        return _of_model(report, metric)
    usages = report.usages(layer)
    usage = usages.get(source) if source else next(iter(usages.values()), None)
    if usage is None:
        return _missing(report, Usage.kind, layer)
    found = _of_usage(usage, metric)
    if usage.source == "checkpoint" and isinstance(found, Figure):
        refuted = (f.fingerprint for f in report.findings if f.code == REFUTES and f.severity > Severity.NOTE)
        if f"{REFUTES}:{layer}" in refuted:
            return replace(found, shortage=f"{REFUTES} refutes its EMA counts; --data BATCH would tell")
    return found


def sources(report: Report, layer: str | None) -> tuple[Source, ...]:
    """Return where a report's figures of a layer, or of the whole model, are from, the best first."""
    if layer is None:
        return ("batch",) if report.find(TaskMetrics) else ()
    usages = report.usages(layer)
    return tuple(source for source in SOURCES if source in usages)


def _missing(report: Report, kind: str, layer: str | None) -> Unknown:
    gaps = [gap for gap in report.unavailable if gap.kind == kind and gap.layer in (layer, None)]
    reasons = list(dict.fromkeys(gap.reason for gap in gaps)) or ["the report does not hold it"]
    hints = [gap.hint for gap in gaps if gap.hint]
    return Unknown(reason="; ".join(reasons) + (f" ({hints[0]} would help)" if hints else ""))


def _of_model(report: Report, metric: Metric) -> Figure | Unknown:
    told = report.find(TaskMetrics)
    if told is None:
        return _missing(report, TaskMetrics.kind, None)
    is_accuracy = metric is METRICS["accuracy"]
    value = told.accuracy if is_accuracy else told.ece
    if value is None:
        noun = "accuracy" if is_accuracy else "calibration"
        return Unknown(reason=f"the batch has no labels to measure the {noun} by")
    low, high = share_interval(value, told.sample_size) if is_accuracy else (told.ece_low, told.ece_high)
    if low is None or high is None:
        return Unknown(reason="the report has no interval of the calibration error: examine it again")
    origin = f"{told.sample_size:,} sample{'' if told.sample_size == 1 else 's'} of the {told.split} split"
    return Figure(value=value, low=low, high=high, origin=origin, grows="batches like this one")


def _of_usage(usage: Usage, metric: Metric) -> Figure | Unknown:
    vectors = _independent(usage)
    if metric is METRICS["perplexity"]:
        value = usage.perplexity
        low, high = _perplexity_interval(usage)
    elif metric is METRICS["usage"]:
        value = low = usage.share
        high = max(low, _most(_seen_more_than(usage, 0), 0, _boundary(usage)) / usage.num_codes)
    elif usage.implicit:
        return Unknown(reason="the layer stores no codes: combinations of levels cannot die")
    else:
        value = 1 - usage.active / usage.num_codes
        low, high = _dead_interval(usage)
    return Figure(
        value=value,
        low=min(low, value),
        high=min(max(high, value), 1.0 if metric.share else usage.num_codes),
        origin=_origin(usage, vectors),
        shortage=_shortage(usage, vectors),
        grows="batches like this one" if usage.source == "batch" else "",
    )


def _independent(usage: Usage) -> float:
    """How many independent vectors a usage is worth."""
    if usage.estimator == EMA_COUNTS:
        return (usage.effective_size or usage.sample_size * (usage.window or 1.0)) / ASSUMED_EFFECT
    return usage.effective_size or 0.0


def _origin(usage: Usage, vectors: float) -> str:
    if usage.source == "checkpoint" and usage.estimator != EMA_COUNTS:
        return f"the last {usage.vectors:,} indices in the file, worth {vectors:,.0f} independent ones"
    if usage.source == "checkpoint":
        window = f"over ~{usage.window:,.0f} batches" if usage.window else "over an unrecorded window"
        return f"EMA counts {window} ({ASSUMED_EFFECT:g} alike vectors counted as 1)"
    told = f"{usage.vectors:,} vectors"
    if usage.groups:
        told += f" of {usage.groups:,} sample{'' if usage.groups == 1 else 's'}"
    worth = f", worth {vectors:,.0f} independent ones" if vectors < 0.99 * usage.vectors else ""
    return told + worth


def _shortage(usage: Usage, vectors: float) -> str:
    if usage.groups is not None and usage.groups < LEAST_SAMPLES:
        samples = f"{usage.groups} sample{' does' if usage.groups == 1 else 's do'}"
        return f"{samples} not tell how samples differ: give at least {LEAST_SAMPLES}"
    if vectors >= usage.num_codes:
        return ""
    few = f"{vectors:,.0f} independent vectors are too few for {usage.num_codes:,} codes"
    if usage.source == "checkpoint":
        return f"{few}; --data BATCH would tell"
    more = math.ceil((PLENTY * usage.num_codes - vectors) / vectors) if vectors else 0
    words = f"about {more:,} more batch{'' if more == 1 else 'es'} like this one make" if more else "give"
    return f"{few}; {words} {PLENTY} per code"


def _perplexity_interval(usage: Usage) -> tuple[float, float]:
    """The interval of the evidence; that of EMA counts, made for independent vectors, is widened."""
    value, low, high = usage.perplexity, usage.perplexity_low, usage.perplexity_high
    if usage.source != "checkpoint" or min(value, low, high) <= 0:
        return low, high
    spread = math.log(value / low)
    bias = max(0.0, math.log(high / value) - spread)  # falls with 1/N, and the spread with its root
    wide = spread * math.sqrt(ASSUMED_EFFECT)
    highest = value * math.exp(min(bias * ASSUMED_EFFECT + wide, 700.0))
    return max(1.0, value * math.exp(-wide)), min(max(high, highest), usage.num_codes)


def _boundary(usage: Usage) -> float:
    """Independent choices to be expected of a code that is only just not dead."""
    return usage.active_share * _independent(usage) / usage.num_codes


def _dead_interval(usage: Usage) -> tuple[float, float]:
    """From one minus the most codes that can be active to one minus the fewest.

    At the boundary of active and dead a code is chosen as a Poisson variable says. Codes above its upper
    2.5 % are active, less as many of the others as chance lifts there; codes below its lower 2.5 %, or
    never chosen, are dead, less as many of the active ones as chance drops there.
    """
    mean, codes = _boundary(usage), usage.num_codes
    below, above = _poisson_ends(mean)
    fewest = _seen_more_than(usage, above)[0]
    others = usage.used - fewest + (codes - usage.used) * math.exp(-mean)
    fewest -= others * TAIL / (1 - TAIL)
    most = min(_most(_seen_more_than(usage, cut), cut, mean) for cut in {0, below})
    return 1 - min(most, codes) / codes, 1 - max(fewest, 0.0) / codes


def _most(seen: tuple[float, float], cut: int, mean: float) -> float:
    """How many codes can be active where `seen` of them were chosen more than `cut` times.

    An active code is with probability q = P(Poisson(mean) > cut), or more; so the seen are at least a
    binomial share q of the active, which its lower 2.5 % turns into a bound.
    """
    q = 1 - _poisson_up_to(cut, mean)
    if q <= 0:
        return math.inf
    chance = Z * math.sqrt(q * (1 - q))
    root = (chance + math.sqrt(chance * chance + 4 * q * seen[1])) / (2 * q)
    return root * root


def _seen_more_than(usage: Usage, cut: int) -> tuple[float, float]:
    """The fewest and the most codes that were chosen more than `cut` independent times."""
    if cut == 0:
        return usage.used, usage.used
    factor = _independent(usage) / usage.vectors
    if usage.histogram:
        above = sum(count * factor > cut for count in usage.histogram)
        return above, above
    values, codes = usage.count_quantiles, usage.num_codes
    if len(values) < 2:
        return 0.0, usage.used
    ranks = [round(i * (codes - 1) / (len(values) - 1)) for i in range(len(values))]
    least = min((r for r, value in zip(ranks, values, strict=True) if value * factor > cut), default=codes)
    most = max((r for r, value in zip(ranks, values, strict=True) if value * factor <= cut), default=-1)
    return codes - least, codes - 1 - most


def _poisson_ends(mean: float) -> tuple[int, int]:
    """Return the largest n with P(≤ n) ≤ 2.5 %, or 0, and the smallest with P(> n) ≤ 2.5 %."""
    if mean > 100:
        half = Z * math.sqrt(mean)
        return max(0, math.floor(mean - half - 1)), math.ceil(mean + half)
    n = 0
    while _poisson_up_to(n, mean) <= TAIL:
        n += 1
    below = max(0, n - 1)
    while 1 - _poisson_up_to(n, mean) > TAIL:
        n += 1
    return below, n


def _poisson_up_to(n: int, mean: float) -> float:
    """P(Poisson(mean) ≤ n); of a large mean by the normal distribution."""
    if mean > 100:
        return 0.5 * math.erfc((mean - n - 0.5) / math.sqrt(2 * mean))
    if mean <= 0:
        return 1.0
    return math.fsum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(n + 1))
