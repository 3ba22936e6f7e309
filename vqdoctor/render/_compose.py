"""From a report to its document: the order of the parts, the first line and the last."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from vqdoctor.core.evidence import Usage
from vqdoctor.core.gate import GateStatus
from vqdoctor.core.report import LayerSummary, Report, Verdict
from vqdoctor.core.undecided import undecided_layers
from vqdoctor.render import _cures as cures
from vqdoctor.render import _document as nodes
from vqdoctor.render import _experiments as experiments
from vqdoctor.render import _findings as findings
from vqdoctor.render import _gaps as gaps
from vqdoctor.render import _phrases as phrases
from vqdoctor.render._renderer import RenderOptions
from vqdoctor.render._text import count, listing

VERDICT_TONES: Mapping[Verdict, nodes.Tone] = {
    "collapsed": "bad", "at-risk": "warn", "inconclusive": "open", "healthy": "good",
}  # fmt: skip
GATE_TONES: Mapping[str, nodes.Tone] = {"pass": "good", "fail": "bad", "inconclusive": "open"}
ASSERTION_TONES: dict[str, nodes.Tone] = {**GATE_TONES, "warn": "warn", "known": "faint"}


def document(report: Report, options: RenderOptions) -> nodes.Document:
    """Return the report as a document: decisions, causes, plan, VQ layers, facts and gaps."""
    found = findings.blocks(report)
    gate, cure = report.gate, cures.headline(report)
    decisions = [_gate(gate.status, phrases.gate_headline(gate))] if gate else []
    near = [nodes.Item(name=c.key, text=f"{'×'.join(map(str, c.shape))}  {c.why}") for c in report.candidates]
    pick = nodes.Item(text="If one of them is the codebook, name it:", commands=("--codebook-key KEY",))
    title = "VQ layers" if len(report.layers) > 1 else "VQ layer"
    layers = nodes.Layers(layers=tuple(_layer(report, layer) for layer in report.layers))
    sections = [
        *cures.sections(report),
        *findings.sections(report, found, options.names),
        experiments.section(report),
        *([_plan(report, found, verbose=options.verbose)] if cures.has_plan(report) else []),
        nodes.items_section("Nearest candidates", [*near, pick] if near else []),
        nodes.Section(title=title, nodes=(layers,) if report.layers else ()),
        _facts(report),
        *findings.notes(found),
        gaps.section(report, options.names, verbose=options.verbose),
    ]
    next_step, command = ("", "") if cures.is_left_in_source(report) else _next(report, found)
    return nodes.Document(
        subject=report.checkpoint.path if report.checkpoint else "model",
        verdict=_verdict(report, found),
        decisions=(*decisions, *([cure] if cure else [])),
        gate=gate.status if gate else None,
        assertions=_assertions(report),
        alarms=tuple(
            nodes.Item(label="CRASHED", tone="bad", text=f"{phrases.on(o.code, o.layer)}: {o.reason}")
            for o in phrases.crashed(report)
        ),
        sections=tuple(section for section in sections if section and section.nodes),
        left=cures.left(report),
        next_step=next_step,
        command=command,
        tally=phrases.tally(report),
        version=report.version,
    )


def documents(
    reports: Sequence[Report], options: RenderOptions
) -> tuple[list[nodes.Document], nodes.Headline | None]:
    """Return the document of each report, and the decision of a gate over all of them."""
    status = phrases.gate_status(reports)
    told = [document(report, options) for report in reports]
    statuses = [one.gate for one in told if one.gate]
    return told, _gate(status, phrases.gate_tally(statuses)) if status else None


def _gate(status: GateStatus, text: str) -> nodes.Headline:
    return nodes.Headline(word=phrases.gate_verdict(status), tone=GATE_TONES[status], text=text)


def _verdict(report: Report, found: Sequence[nodes.Block]) -> nodes.Headline:
    """Return the verdict with the first cause; a run with a crashed check never looks whole."""
    crashed = len(phrases.crashed(report))
    word = f"{report.verdict.upper().replace('-', ' ')}{', BUT INCOMPLETE' if crashed else ''}"
    causes = findings.causes(found)
    if cures.is_left_in_source(report):
        causes_left = ", ".join(dict.fromkeys(phrases.on(f"{c.code} {c.name}", c.layers) for c in causes))
        return nodes.Headline(word="LEFT IN YOUR SOURCE", tone="note", text=causes_left)
    if causes:
        open_ = findings.unexplained(found)
        word = f"{word}, cause not found" if open_ else word
        told = [phrases.on(f"{causes[0].code} {causes[0].name}", causes[0].layers)]
        symptoms = sum(len(block.symptoms) for block in found)
        told += [count(len(causes) - 1, "more finding" if open_ else "more cause")] if len(causes) > 1 else []
        text = ", ".join([*told, *([count(symptoms, "symptom")] if symptoms else [])])
    elif crashed:
        text = f"{count(crashed, 'check')} crashed"
    elif not report.layers:
        text = phrases.no_layer(report)
    elif report.verdict == "inconclusive":
        text = _undecided(report)
    else:
        text = f"no error and no warning in {count(len(report.layers), 'VQ layer')}, {_basis(report)}"
        if left := cures.in_source(report):
            text = f"{text}; left in your source: {', '.join(left)}"
    return nodes.Headline(word=word, tone=VERDICT_TONES[report.verdict], text=text)


def _basis(report: Report) -> str:
    """Say what the usage of all layers was judged by."""
    sources = {next(iter(report.usages(layer.name)), "") for layer in report.layers}
    return "judged by EMA counts" if sources == {"checkpoint"} else "judged by data"


def _undecided(report: Report) -> str:
    """Say whose usage is unknown or known from too few vectors, and what decides."""
    layers = undecided_layers(report)
    known = [report.usages(name) for name in layers if report.usages(name)]
    if known and all(usage.at_least for usages in known for usage in usages.values()):
        more = "" if report.runs_model else "; --task FILE.py:NAME decides"
        return f"the number of codes of {listing(list(layers))} is unknown{more}"
    doubt = "is known from too few vectors" if len(known) == len(layers) else "is unknown"
    more = "more vectors in --data" if any("batch" in usage for usage in known) else "--data batch.npz"
    if report.runs_model:
        more = (
            "a larger batch, or --batches N,"
            if known
            else "a dump of its indices, given as --data without a model,"
        )
    return f"the usage of {listing(list(layers))} {doubt}; {more} decides"


def _assertions(report: Report) -> tuple[nodes.Assertion, ...]:
    gate = report.gate
    words = [phrases.judged(gate, judgement) for judgement in gate.judgements] if gate else []
    return tuple(
        nodes.Assertion(
            word=word,
            tone=ASSERTION_TONES[word],
            about=phrases.judged_on(judgement),
            assertion=phrases.assertion(judgement),
            layer=judgement.layer or "",
            figure=phrases.measured_figure(judgement),
            reason=judgement.reason,
        )
        for word, judgement in zip(words, gate.judgements if gate else (), strict=True)
    )


def _facts(report: Report) -> nodes.Section:
    items = [nodes.Item(label=label, tone="faint", text=text) for label, text in phrases.facts(report)]
    if report.checkpoint:
        identity = nodes.Item(text=phrases.file_identity(report.checkpoint))
        items.insert(0, nodes.Item(label="file", tone="faint", text=report.checkpoint.path, more=(identity,)))
    return nodes.items_section("", items)


def _layer(report: Report, layer: LayerSummary) -> nodes.Layer:
    sure = layer.layout_confidence == "high"
    usages = tuple(report.usages(layer.name).values())
    best = usages[0] if usages else None
    unknown: list[str] = []
    if not usages:
        unknown += [f"usage unknown from {reason}" for reason in phrases.unknown_usage(report, layer.name)]
        unknown += phrases.remembered_use(report, layer.name)
        gaps_ = (u for u in report.unavailable if u.kind == Usage.kind and u.layer in (layer.name, None))
        unknown += [f"to measure it: {hint}" for hint in dict.fromkeys(u.hint for u in gaps_ if u.hint)]
    return nodes.Layer(
        name=layer.name,
        about=phrases.layer_line(layer),
        doubt="" if sure else "not certain: --codebook-key, --layout or --layer corrects it",
        usages=tuple(map(phrases.usage_sentence, usages)),
        bar=None
        if best is None
        else nodes.UsageBar(
            active=best.active,
            rare=best.used - best.active,
            unused=best.num_codes - best.used,
            counts=tuple(best.count_quantiles),
        ),
        unknown=tuple(unknown),
    )


def _plan(report: Report, found: Sequence[nodes.Block], *, verbose: bool) -> nodes.Section:
    above = {block.remedy for block in found if block.remedy_code}
    steps = [
        nodes.Item(
            label=f"{step.step}.",
            name=step.remedy,
            text=f"for {listing(list(step.codes))}" if step.codes else "in every retraining",
            more=(nodes.Item(text=step.how),),
            code="" if step.remedy in above else step.code,
        )
        for step in report.plan
    ]
    plan = nodes.items_section("Plan, in the order to try", steps)
    return replace(plan, without_code=not verbose)


def _next(report: Report, found: Sequence[nodes.Block]) -> tuple[str, str]:
    """Return where to begin, and the command that explains it; both "" without a cause."""
    causes = findings.causes(found)
    if not causes:
        return "", ""
    if report.retraining is not None and report.retraining.ended == "unlearned":
        return "begin outside of VQ, with the data and the loss", "vqdoctor explain VQ607"
    open_ = findings.unexplained(found)
    item = findings.deciding(open_[0]) if open_ else None
    step = f"begin with {causes[0].code}"
    if item and open_[0].decide_with:
        step = f"{item.name} {'tells it' if item.name.endswith('--decide') else 'decides'}"
    return step, f"vqdoctor explain {causes[0].code}"
