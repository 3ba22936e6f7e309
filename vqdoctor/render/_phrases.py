"""The sentences of a report, shared by the formats that people read.

Sentences may hold strings from the examined file as they are; the format that writes a sentence escapes them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

from vqdoctor.core.assertion import METRICS
from vqdoctor.core.evidence import (
    EMA_COUNTS,
    InputSummary,
    OptimizerMemory,
    SequenceStage,
    TaskMetrics,
    TrainingRecord,
    Usage,
)
from vqdoctor.core.finding import Finding, Measurement, Outcome
from vqdoctor.core.gate import Gate, GateStatus, Judgement
from vqdoctor.core.levels import Confidence
from vqdoctor.core.report import CheckpointSummary, LayerSummary, Report
from vqdoctor.render._text import against, count, layers_in_short, listing, number, percent, size

GATE_WORDS: Mapping[GateStatus, str] = {"pass": "passed", "fail": "failed", "inconclusive": "inconclusive"}
WORST_FIRST: tuple[GateStatus, ...] = ("fail", "inconclusive", "pass")

CRASH = "The problems that a crashed check looks for may be present. Please report this bug."


def gate_status(reports: Sequence[Report]) -> GateStatus | None:
    """The status of a gate over several reports: the worst one; None where there is no gate."""
    told = {report.gate.status for report in reports if report.gate}
    return next((status for status in WORST_FIRST if status in told), None)


def gate_verdict(status: GateStatus) -> str:
    """The gate's status in capitals."""
    return f"GATE {GATE_WORDS[status].upper()}"


def gate_tally(statuses: Sequence[GateStatus]) -> str:
    """How many checkpoints failed, were inconclusive and passed a gate."""
    amounts = (f"{statuses.count(word)} {GATE_WORDS[word]}" for word in WORST_FIRST if word in statuses)
    return f"{', '.join(amounts)}, of {count(len(statuses), 'checkpoint')}"


def gate_headline(gate: Gate) -> str:
    """The assertions and findings that fail a gate or leave it open; for a pass, how many hold."""
    if gate.status != "pass":
        decisive: dict[str, list[str]] = {}
        for judgement in gate.judgements:
            same = (judgement.status, judgement.level) == (gate.status, "error")
            if same and judgement.fingerprint not in gate.hidden:
                decisive.setdefault(metric(judgement), []).append(judgement.layer or "")
        for fingerprint in gate.failing if gate.status == "fail" else ():
            code, _, layer = fingerprint.partition(":")
            decisive.setdefault(code, []).append(layer)
        told = [on(about, layers_in_short(filter(None, layers))) for about, layers in decisive.items()]
        return listing(told, at_most=4)
    held = sum(j.status == "pass" for j in gate.judgements)
    open_ = sum(j.status != "pass" and j.fingerprint not in gate.hidden for j in gate.judgements)
    amounts = (
        (held, "assertion holds", "assertions hold"),
        (open_, "warning", ""),
        (len(gate.hidden), "known problem hidden", "known problems hidden"),
    )
    return ", ".join(count(*words) for words in amounts if words[0]) or "no finding at or above the bar"


def metric(judgement: Judgement) -> str:
    """The metric of a judgement, as "perplexity" or "perplexity drop"."""
    return judgement.fingerprint.partition(":")[0].removeprefix("gate/").replace("-", " ")


def on(about: str, layer: str | None) -> str:
    """A thing and its layer, as "VQ101 on vq"; a thing alone is about the whole model."""
    return f"{about} on {layer}" if layer else about


def judged_on(judgement: Judgement) -> str:
    """The metric and the layer of a judgement, as "perplexity on vq"; it holds across thresholds."""
    return on(metric(judgement), judgement.layer)


def assertion(judgement: Judgement) -> str:
    """A judgement's assertion, as "perplexity >= 50"."""
    return f"{metric(judgement)} {judgement.relation} {_figure(judgement, judgement.threshold)}"


def measured_figure(judgement: Judgement) -> str:
    """A judgement's figure with its interval; "unknown" where it was not measured."""
    if judgement.value is None:
        return "unknown"
    if judgement.low is None or judgement.high is None:
        return _figure(judgement, judgement.value)
    value, low, high = (_figure(judgement, x) for x in (judgement.value, judgement.low, judgement.high))
    return f"{value} [{low}–{high}]"


def _figure(judgement: Judgement, value: float) -> str:
    share = judgement.metric in METRICS and METRICS[judgement.metric].percent
    return f"{number(100 * value)}%" if share else number(value)


def judged(gate: Gate, judgement: Judgement) -> str:
    """A judgement in one word: a known one and a mere warning do not look like a failure."""
    if judgement.status == "pass":
        return "pass"
    if judgement.fingerprint in gate.hidden:
        return "known"
    return judgement.status if judgement.level == "error" else "warn"


def cause(finding: Finding) -> str:
    """The root of a symptom, as "VQ101 on vq"; "" for a root."""
    code, _, layer = (finding.explained_by or "").partition(":")
    return on(code, layer)


def named(code: str, names: Mapping[str, str]) -> str:
    """A check's code with its name beside it, where the name is known."""
    return f"{code} {names.get(code, '')}".rstrip()


def crashed(report: Report) -> tuple[Outcome, ...]:
    """The checks that crashed."""
    return tuple(o for o in report.outcomes if o.status == "crashed")


def file_identity(file: CheckpointSummary) -> str:
    """Container, size and fingerprint of a file."""
    identity = f"sha256 {file.sha256}" if file.sha256 else f"fingerprint {file.fingerprint[:16]}"
    return f"{file.container}, {size(file.bytes)}, {identity}"


def facts(report: Report) -> Iterator[tuple[str, str]]:
    """Yield (label, sentence) of the training, the input, the model and the notes."""
    for item in report.evidence:
        if isinstance(item, TrainingRecord) and item.sample_size:
            yield "training", _training(item)
    for item in report.evidence:
        if isinstance(item, InputSummary):
            yield "input", _input(item)
    metrics = report.find(TaskMetrics)
    if metrics:
        yield "model", _model(metrics)
    for item in report.evidence:
        if isinstance(item, SequenceStage):
            yield "sequence", _sequence(item, next(iter(report.usages(item.layer or "").values()), None))
    for note in report.notes:
        yield "note", note


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
    return ", ".join(told) or "recorded, but no setting that vqdoctor reads"


def _input(summary: InputSummary) -> str:
    shape = "×".join(str(n) for n in summary.shape)
    labels = f", {count(summary.labels, 'label')}" if summary.labels else ""
    return (
        f"{summary.name} {shape}, range {number(summary.minimum)} to {number(summary.maximum)}, "
        f"mean {number(summary.mean)}, std {number(summary.std)}{labels}"
    )


def _model(m: TaskMetrics) -> str:
    same = "" if m.held_out else ", which is the training data itself"
    where = f"{count(m.sample_size, 'sample')} of {m.split}{same}"
    if m.accuracy is None:
        without = "" if m.bypass_loss is None else f", {number(m.bypass_loss)} without"
        return f"task loss {number(m.loss)} with VQ{without}, on {where}"
    bypass = f", {percent(m.bypass_accuracy)} without" if m.bypass_accuracy is not None else ""
    chance = f" (chance {percent(m.chance_accuracy)})" if m.chance_accuracy is not None else ""
    ece = f", ECE {m.ece:.3f}" if m.ece is not None else ""
    return f"accuracy {percent(m.accuracy)} with VQ{bypass}{chance}{ece}, on {where}"


def _sequence(stage: SequenceStage, usage: Usage | None) -> str:
    told = []
    if stage.clusters is not None and stage.told_apart is not None:
        used = f"{count(stage.clusters, 'cluster')}, {stage.clusters_used} in use"
        told.append(f"{used}, telling {stage.told_apart:.1f} groups of codes apart")
    if stage.states is not None:
        used = "" if stage.states_used is None else f", {stage.states_used} in use"
        lasting = f"{min(stage.durations):,.1f} to {max(stage.durations):,.1f} steps"
        told.append(f"{count(stage.states, 'state')}{used}, expected to last {lasting} ({stage.law})")
    perplexity = stage.code_perplexity if usage is None else usage.perplexity
    bits = math.log2(max(perplexity, 1.0))
    return f"{'; '.join(told)}; codes of perplexity {perplexity:,.1f} tell up to {bits:.1f} bits a step"


def layer_line(layer: LayerSummary) -> str:
    """A layer's codes, dimensions and layout, with the confidence where it is not high."""
    sure = layer.layout_confidence == "high"
    doubt = "" if sure else f" ({layer.layout_confidence} confidence)"
    dim = f" of {count(layer.dim, 'dimension')}" if layer.dim else ""
    return f"{count(layer.num_codes, 'code')}{dim}, layout {layer.layout}{doubt}"


def usage_sentence(usage: Usage) -> str:
    """Perplexity with its interval, the codes in use, and the sample that shows it."""
    interval = f"[{usage.perplexity_low:,.1f}–{usage.perplexity_high:,.1f}]"
    sample = f"{usage.source} of {count(usage.vectors, 'vector')}"
    if usage.source == "checkpoint" and usage.estimator != EMA_COUNTS:
        sample = f"window of the last {count(usage.vectors, 'index', 'indices')} in the file"
    elif usage.source == "checkpoint":
        window = f" over ~{count(round(usage.window), 'batch', 'batches')}" if usage.window else ""
        if usage.assumed_decay is not None:
            window += f" (decay {number(usage.assumed_decay)} assumed)"
        sample = f"EMA{window}"
    return (
        f"perplexity {usage.perplexity:,.1f} of {usage.num_codes:,} {interval}, "
        f"{count(usage.used, 'code')} used, {sample}"
    )


def no_layer(report: Report) -> str:
    """Say that no VQ layer was found, or that a codebook is there and could not be read."""
    if not report.unread:
        return "no VQ layer was found"
    more = f" and {len(report.unread) - 1} more" if len(report.unread) > 1 else ""
    return f"no VQ layer can be read: {report.unread[0]}{more}"


def unknown_usage(report: Report, layer: str) -> list[str]:
    """The reasons why a source does not show a layer's usage, as "batch: no batch was given"."""
    gaps = (u for u in report.unavailable if u.kind == Usage.kind and u.layer in (layer, None))
    return list(dict.fromkeys(f"{u.source}: {u.reason}" for u in gaps))


def remembered_use(report: Report, layer: str) -> list[str]:
    """The bounds that the optimizer's memory puts on a usage that is otherwise unknown.

    A code with a gradient was chosen; how often, no moment tells. Weight decay may give every code one.
    """
    memories = [e for e in report.evidence if isinstance(e, OptimizerMemory) and e.layer == layer]
    codes = next((summary.num_codes for summary in report.layers if summary.name == layer), 0)
    told = []
    for memory in memories:
        untouched, lately = memory.codebook_untouched_rows, memory.recent_codes_high
        if memory.weight_decay != 0 or untouched is None:
            continue
        chosen = codes - untouched if lately is None else lately
        when = "" if lately is None else " in the last 400 updates"
        if chosen:
            told.append(
                f"the optimizer remembers a gradient of {chosen:,} of {codes:,} codes{when}: perplexity is "
                f"at most {chosen:,}"
            )
    return told


def why_unknown(report: Report, layer: str) -> str:
    """The reasons why no source shows a layer's usage, in one line."""
    return "; ".join(unknown_usage(report, layer)) or "no source measures it"


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


def tally(report: Report) -> str:
    """How many checks found something, passed, were skipped or crashed, over all layers."""
    words = {"found": "found something", "passed": "passed", "skipped": "skipped", "crashed": "crashed"}
    amounts = {status: sum(o.status == status for o in report.outcomes) for status in words}
    told = [f"{amount} {words[status]}" for status, amount in amounts.items() if amount]
    return f"{count(len(report.outcomes), 'check')}: {', '.join(told)}" if told else "no check ran"
