"""What a report says, in sentences: shared by the formats that people read.

Sentences may hold strings from the examined file as they are. Escaping is for the one who writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vqdoctor.core.assertion import METRICS
from vqdoctor.core.evidence import InputSummary, TaskMetrics, TrainingRecord, Usage
from vqdoctor.core.finding import Finding, Measurement, Outcome
from vqdoctor.core.gate import Gate, GateStatus, Judgement
from vqdoctor.core.levels import Confidence, Severity
from vqdoctor.core.report import LayerSummary, PlanStep, Report
from vqdoctor.render._text import against, count, listing, number, percent, size

VERDICTS: Mapping[str, str] = {
    "collapsed": "COLLAPSED",
    "at-risk": "AT RISK",
    "inconclusive": "INCONCLUSIVE",
    "healthy": "HEALTHY",
}

GATE_WORDS: Mapping[GateStatus, str] = {"pass": "passed", "fail": "failed", "inconclusive": "inconclusive"}
WORST_FIRST: tuple[GateStatus, ...] = ("fail", "inconclusive", "pass")


@dataclass(frozen=True, kw_only=True)
class Gap:
    """One reason why something was not examined, and all that it concerns.

    Attributes:
        reason: why.
        hints: flags, or what to save next time.
        kinds: kinds of evidence that are missing for it.
        codes: checks that were skipped for it.
    """

    reason: str
    hints: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)


def verdict(report: Report) -> str:
    """The verdict in capitals; a run with a crashed check never looks whole."""
    word = VERDICTS[report.verdict]
    return f"{word}, BUT INCOMPLETE" if crashed(report) else word


def headline(report: Report) -> str:
    """The one line that says what is wrong and where to begin."""
    causes = [f for f in report.roots() if f.severity > Severity.NOTE]
    if causes:
        symptoms = sum(1 for f in report.findings if f.explained_by is not None)
        others = [count(len(causes) - 1, "more cause")] if len(causes) > 1 else []
        others += [count(symptoms, "symptom")] if symptoms else []
        return ", ".join([f"{causes[0].code} {causes[0].name}{place(causes[0])}", *others])
    if crashed(report):
        return f"{count(len(crashed(report)), 'check')} crashed"
    if not report.layers:
        return "no VQ layer was found"
    if report.verdict == "inconclusive":
        unknown = [layer.name for layer in report.layers if not report.usages(layer.name)]
        return f"nothing tells which codes {listing(unknown)} uses; see what was not examined"
    return f"no error and no warning in {count(len(report.layers), 'VQ layer')}"


def gate_status(reports: Sequence[Report]) -> GateStatus | None:
    """What a gate says of several reports: the worst that it says of one; None where there is no gate."""
    told = {report.gate.status for report in reports if report.gate}
    return next((status for status in WORST_FIRST if status in told), None)


def gate_verdict(status: GateStatus) -> str:
    """The gate's status in capitals."""
    return f"GATE {GATE_WORDS[status].upper()}"


def gate_tally(reports: Sequence[Report]) -> str:
    """How many checkpoints failed, were inconclusive and passed a gate."""
    told = [report.gate.status for report in reports if report.gate]
    amounts = (f"{told.count(word)} {GATE_WORDS[word]}" for word in WORST_FIRST if word in told)
    return f"{', '.join(amounts)}, of {count(len(told), 'checkpoint')}"


def subject(report: Report) -> str:
    """What was examined: the file as it was named, or "model"."""
    return report.checkpoint.path if report.checkpoint else "model"


def gate_headline(gate: Gate) -> str:
    """What decided: the assertions and findings that fail it, or those that leave it open."""
    if gate.status != "pass":
        decisive = [
            judged_on(j)
            for j in gate.judgements
            if (j.status, j.level) == (gate.status, "error") and j.fingerprint not in gate.hidden
        ]
        if gate.status == "fail":
            decisive += [_code_on(fingerprint) for fingerprint in gate.failing]
        return listing(decisive, at_most=4)
    held = sum(j.status == "pass" for j in gate.judgements)
    amounts = [(held, "assertion holds", "assertions hold")]
    amounts += [
        (_open(gate), "warning", ""),
        (len(gate.hidden), "known problem hidden", "known problems hidden"),
    ]
    told = [count(*words) for words in amounts if words[0]]
    return ", ".join(told) or "no finding at or above the bar"


def _open(gate: Gate) -> int:
    """How many assertions did not pass, and neither fail the gate nor are known."""
    return sum(j.status != "pass" and j.fingerprint not in gate.hidden for j in gate.judgements)


def metric(judgement: Judgement) -> str:
    """What a judgement compares, as "perplexity" or "perplexity drop"."""
    return judgement.fingerprint.partition(":")[0].removeprefix("gate/").replace("-", " ")


def judged_on(judgement: Judgement) -> str:
    """What a judgement is about, as "perplexity on vq"; it holds across thresholds."""
    return f"{metric(judgement)} on {judgement.layer}" if judgement.layer else metric(judgement)


def assertion(judgement: Judgement) -> str:
    """A judgement's assertion, as "perplexity >= 50"."""
    return f"{metric(judgement)} {judgement.relation} {_figure(judgement, judgement.threshold)}"


def measured_figure(judgement: Judgement) -> str:
    """A judgement's figure with its interval; "unknown" where nothing tells it."""
    if judgement.value is None:
        return "unknown"
    if judgement.low is None or judgement.high is None:
        return _figure(judgement, judgement.value)
    value, low, high = (_figure(judgement, x) for x in (judgement.value, judgement.low, judgement.high))
    return f"{value} [{low}–{high}]"


def _figure(judgement: Judgement, value: float) -> str:
    """A figure of what is judged, as people read it."""
    percent = judgement.metric in METRICS and METRICS[judgement.metric].percent
    return f"{number(100 * value)}%" if percent else number(value)


def judged(gate: Gate, judgement: Judgement) -> str:
    """A judgement in one word: a known one and a mere warning do not look like a failure."""
    if judgement.status == "pass":
        return "pass"
    if judgement.fingerprint in gate.hidden:
        return "known"
    return judgement.status if judgement.level == "error" else "warn"


def _code_on(fingerprint: str) -> str:
    code, _, layer = fingerprint.partition(":")
    return f"{code} on {layer}" if layer else code


def cause(finding: Finding) -> str:
    """What explains a symptom, as "VQ101 on vq"; "" for a root."""
    return _code_on(finding.explained_by) if finding.explained_by else ""


def place(finding: Finding, root: Finding | None = None) -> str:
    """Where a finding is, as " on vq"; nothing where it is the whole model, or where its root is."""
    told = finding.layer is None or (root is not None and root.layer == finding.layer)
    return "" if told else f" on {finding.layer}"


def crashed(report: Report) -> tuple[Outcome, ...]:
    """The checks that crashed."""
    return tuple(o for o in report.outcomes if o.status == "crashed")


def facts(report: Report) -> Iterable[tuple[str, str]]:
    """Yield (label, sentence) of what was examined: file, training, input, model, notes."""
    if report.checkpoint:
        yield "file", report.checkpoint.path
        yield "", _file(report)
    for item in report.evidence:
        if isinstance(item, TrainingRecord) and item.sample_size:
            yield "training", _training(item)
    for item in report.evidence:
        if isinstance(item, InputSummary):
            yield "input", _input(item)
    metrics = report.find(TaskMetrics)
    if metrics:
        yield "model", _model(metrics)
    for note in report.notes:
        yield "note", note


def _file(report: Report) -> str:
    file = report.checkpoint
    assert file is not None
    identity = f"sha256 {file.sha256}" if file.sha256 else f"fingerprint {file.fingerprint[:16]}"
    return f"{file.container}, {size(file.bytes)}, {identity}"


def _training(record: TrainingRecord) -> str:
    settings = {
        "task": record.task,
        "epochs": record.epochs,
        "updates": record.updates,
        "batch size": record.batch_size,
        "learning rate": record.learning_rate,
        "VQ weight": record.vq_weight,
        "commitment weight": record.commitment_weight,
        "decay": record.decay,
    }
    told = [
        f"{name} {value if isinstance(value, str) else number(value)}"
        for name, value in settings.items()
        if value is not None
    ]
    return ", ".join(told) or "recorded, without any setting that matters here"


def _input(summary: InputSummary) -> str:
    shape = "×".join(str(n) for n in summary.shape)
    labels = f", {count(summary.labels, 'label')}" if summary.labels else ""
    return (
        f"{summary.name} {shape}, range {number(summary.minimum)} to {number(summary.maximum)}, "
        f"mean {number(summary.mean)}, std {number(summary.std)}{labels}"
    )


def _model(m: TaskMetrics) -> str:
    where = f"{count(m.sample_size, 'sample')} of {m.split}"
    if m.accuracy is None:
        without = "" if m.bypass_loss is None else f", {number(m.bypass_loss)} without"
        return f"task loss {number(m.loss)} with VQ{without}, on {where}"
    bypass = f", {percent(m.bypass_accuracy)} without" if m.bypass_accuracy is not None else ""
    chance = f" (chance {percent(m.chance_accuracy)})" if m.chance_accuracy is not None else ""
    ece = f", ECE {m.ece:.3f}" if m.ece is not None else ""
    return f"accuracy {percent(m.accuracy)} with VQ{bypass}{chance}{ece}, on {where}"


def layer_line(layer: LayerSummary) -> str:
    """What a layer is; how sure that is, where it is not sure."""
    sure = layer.layout_confidence == "high"
    doubt = "" if sure else f" ({layer.layout_confidence} confidence)"
    return (
        f"{count(layer.num_codes, 'code')} of {count(layer.dim, 'dimension')}, layout {layer.layout}{doubt}"
    )


def usage_sentence(usage: Usage) -> str:
    """Perplexity with its interval, the codes in use, and where that was seen."""
    interval = f"[{usage.perplexity_low:,.1f}–{usage.perplexity_high:,.1f}]"
    return (
        f"perplexity {usage.perplexity:,.1f} of {usage.num_codes:,} {interval}, "
        f"{count(usage.used, 'code')} used, {_seen(usage)}"
    )


def _seen(usage: Usage) -> str:
    if usage.source == "checkpoint":
        window = f" over ~{count(round(usage.window), 'batch', 'batches')}" if usage.window else ""
        return f"EMA{window}"
    return f"{usage.source} of {count(usage.vectors, 'vector')}"


def unknown_usage(report: Report, layer: str) -> list[str]:
    """Why a source does not tell a layer's usage, as "batch: no batch was given"."""
    gaps = (u for u in report.unavailable if u.kind == Usage.kind and u.layer in (layer, None))
    return list(dict.fromkeys(f"{u.source}: {u.reason}" for u in gaps))


def tag(finding: Finding) -> str:
    """Severity, and confidence where it is not high."""
    sure = finding.confidence is Confidence.HIGH
    doubt = "" if sure else f" ({finding.confidence.label} confidence)"
    return finding.severity.label.upper() + doubt


def measured(m: Measurement) -> tuple[str, str, str]:
    """A measurement as (name, value, limit), the limit "" where there is none."""
    name = m.name.replace("_", " ")
    if m.limit is None:
        return name, number(m.value) + _unit(m, m.value), ""
    value, bound = against(m.value, m.limit)
    return name, value + _unit(m, m.value), f"limit {bound}{_unit(m, m.limit)}"


def _unit(m: Measurement, value: float) -> str:
    unit = m.unit.removesuffix("s") if value == 1 else m.unit
    return f" {unit}" if unit else ""


def asked_by(step: PlanStep) -> str:
    """Which findings ask for a step of the plan, as the end of its title."""
    return f"for {listing(list(step.codes))}" if step.codes else "in every retraining"


def remedy_code(report: Report, finding: Finding) -> PlanStep | None:
    """The step of the plan that is the finding's best remedy, if the plan has it."""
    best = finding.remedies[0] if finding.remedies else None
    return next((step for step in report.plan if step.remedy == best), None)


def gaps(report: Report) -> list[Gap]:
    """What could not be examined, one entry a reason: what no source told, and the checks skipped for it.

    What a user can do something about comes first.
    """
    known = {(e.kind, e.layer) for e in report.evidence}
    by_reason: dict[str, Gap] = {}
    for missing in report.unavailable:
        if (missing.kind, missing.layer) in known:
            continue
        gap = by_reason.setdefault(missing.reason, Gap(reason=missing.reason))
        _add(gap.kinds, missing.kind.replace("-", " "))
        _add(gap.hints, missing.hint)
    for outcome in report.outcomes:
        if outcome.status == "skipped":
            reason = outcome.reason or "no reason given"
            _add(by_reason.setdefault(reason, Gap(reason=reason)).codes, outcome.code)
    return sorted(by_reason.values(), key=lambda gap: not gap.hints)


def _add(items: list[str], item: str) -> None:
    if item and item not in items:
        items.append(item)


def tally(report: Report) -> str:
    """How many checks found something, passed, were skipped or crashed, over all layers."""
    words = {"found": "found something", "passed": "passed", "skipped": "skipped", "crashed": "crashed"}
    amounts = {status: sum(o.status == status for o in report.outcomes) for status in words}
    told = [f"{amount} {words[status]}" for status, amount in amounts.items() if amount]
    return f"{count(len(report.outcomes), 'check')}: {', '.join(told)}" if told else "no check ran"
