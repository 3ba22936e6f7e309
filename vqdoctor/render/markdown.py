"""The report for a pull request: GitHub's Markdown, short above, details folded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from vqdoctor.core.finding import Finding
from vqdoctor.core.gate import GateStatus
from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.render import _phrases as story
from vqdoctor.render import _repairs as repairs
from vqdoctor.render import _retraining as retraining
from vqdoctor.render._renderer import Renderer, RenderOptions
from vqdoctor.render._text import listing, printable

# Everything that begins markup inside a line. Underscores within a word and colons before a space do not.
_PUNCTUATION = re.compile(r"([\\`*\[\]#|~$]|(?<![^\W_])_|_(?![^\W_])|:(?=[\w/]))")
# What makes a block of the line that it begins: a list, a rule, a heading underlined.
_BLOCK_START = re.compile(r"^(\d*)([-+=.)])(?!\d)")

BADGE_COLOURS: dict[GateStatus, str] = {"pass": "brightgreen", "fail": "red", "inconclusive": "lightgrey"}


def render(report: Report, options: RenderOptions) -> str:
    """Return the report as Markdown."""
    blocks = ["\n".join(lines) for lines in _parts(report, options.ascii) if lines]
    return "\n\n".join(blocks) + "\n"


def several(reports: Sequence[Report], options: RenderOptions) -> str:
    """Return the reports as Markdown: a table of all, then each."""
    escape = _Escape(options.ascii)
    status = story.gate_status(reports)
    head = (
        [_badge(status), "", f"**{story.gate_verdict(status)}: {story.gate_tally(reports)}**", ""]
        if status
        else []
    )
    rows = ["| checkpoint | gate | verdict | first |", "| --- | --- | --- | --- |"]
    for report in reports:
        gate = story.GATE_WORDS[report.gate.status] if report.gate else ""
        file = escape.span(story.subject(report), in_table=True)
        rows.append(f"| {file} | {gate} | {story.verdict(report)} | {escape.prose(story.headline(report))} |")
    return "\n---\n\n".join(
        ["\n".join([*head, *rows]) + "\n", *(render(report, options) for report in reports)]
    )


class _Escape:
    """Makes strangers' strings inert in Markdown: as prose, and as a code span."""

    def __init__(self, ascii: bool) -> None:
        self.ascii = ascii

    def prose(self, text: str) -> str:
        """Return text that shows as it is: no markup, no HTML, no link, no mention."""
        text = _PUNCTUATION.sub(r"\\\1", printable(text, ascii=self.ascii).strip())
        text = _BLOCK_START.sub(r"\1\\\2", text)
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        # GitHub looks for mentions and bare links after the escapes are gone; an empty comment parts them.
        return text.replace("@", "@<!-- -->").replace("www.", "www<!-- -->.")

    def span(self, text: str, *, in_table: bool = False) -> str:
        """Return a code span around text, with a fence longer than any run of backticks in it."""
        text = printable(text, ascii=self.ascii)
        if in_table:
            text = text.replace("|", r"\|")
        if not text.strip():
            return "` `"
        fence = "`" * (_longest_run(text) + 1)
        pad = " " if text[0] in "` " or text[-1] in "` " else ""
        return f"{fence}{pad}{text}{pad}{fence}"

    def block(self, code: str) -> list[str]:
        """Return a fenced block of code."""
        fence = "`" * max(3, _longest_run(code) + 1)
        lines = [printable(line, ascii=self.ascii) for line in code.splitlines()]
        return [f"{fence}python" if _is_python(code) else fence, *lines, fence]


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def _is_python(code: str) -> bool:
    return not code.startswith(("vqdoctor ", "$ "))


def _parts(report: Report, ascii: bool) -> Iterator[list[str]]:
    """Yield the blocks of lines that make the report, without the blank lines between them."""
    escape = _Escape(ascii)
    if report.gate:
        yield [_badge(report.gate.status)]
    yield [f"### vqdoctor: {story.verdict(report)}"]
    yield [f"**{escape.prose(story.headline(report))}**"]
    crashes = [
        f"> **CRASHED** {outcome.code} {escape.prose(f'on {outcome.layer}' if outcome.layer else '')}: "
        f"{escape.prose(outcome.reason or '')}  "
        for outcome in story.crashed(report)
    ]
    if crashes:
        yield [*crashes, "> What these checks look for was not looked for. Please report this bug."]
    yield from _gate(report, escape)
    yield from _retraining(report, escape)
    yield from _repairs(report, escape)
    facts = [f"- {label}: {escape.prose(text)}" for label, text in _facts(report)]
    if facts:
        yield facts
    yield from _layers(report, escape)
    yield from _findings(report, escape)
    yield from _plan(report, escape)
    yield from _gaps(report, escape)
    yield [f"<sub>{story.tally(report)}. Written by vqdoctor {escape.prose(report.version)}.</sub>"]


def _badge(status: GateStatus) -> str:
    """Return the gate's status as a picture, and in words where pictures are not shown."""
    word = story.GATE_WORDS[status]
    return f"![gate {word}](https://img.shields.io/badge/vqdoctor_gate-{word}-{BADGE_COLOURS[status]})"


def _retraining(report: Report, escape: _Escape) -> Iterator[list[str]]:
    done = report.retraining
    if done is None:
        return
    yield [f"**{retraining.outcome(done).upper()}: {escape.prose(retraining.headline(done))}**"]
    rows = ["| | before | after | goal | met |", "| --- | --- | --- | --- | --- |"]
    for row in retraining.compared(done):
        met = "" if row.met is None else "yes" if row.met else "no"
        rows.append(f"| {escape.prose(row.name)} | {row.before} | {row.after} | {row.goal} | {met} |")
    yield rows
    yield [escape.prose(retraining.beside(done))]
    if done.trial:
        tried = [f"| {escape.prose(name)} | {figures} |" for name, figures in retraining.arms(done)]
        yield ["| tried | came to |", "| --- | --- |", *tried]
    statuses = [
        f"- {status}: {escape.span(remedy)} {escape.prose(reason)}"
        for status, remedy, reason in retraining.repairs(report)
    ]
    if statuses:
        yield statuses
    for change in done.source:
        yield [f"Left to change in your source: {escape.prose(change.why)}:"]
        yield escape.block(change.code)


def _repairs(report: Report, escape: _Escape) -> Iterator[list[str]]:
    if not repairs.shown(report):
        return
    yield [f"**FIX: {escape.prose(repairs.headline(report))}**"]
    yield [
        line
        for repair in report.repairs
        for line in (
            f"- {repairs.status(report, repair)}: {escape.span(repair.remedy)} "
            f"{escape.prose(repairs.title(repair))}",
            *(f"  - {escape.prose(f'{n}: {b} → {a}')}" for n, b, a in repairs.figures(repair)),
            *(
                f"  - {escape.span(key)} {escape.prose(f'{what}; {told}' if told else what)}"
                for key, what, told in map(repairs.change, repair.changes)
            ),
        )
    ]


def _gate(report: Report, escape: _Escape) -> Iterator[list[str]]:
    gate = report.gate
    if gate is None:
        return
    yield [f"**{story.gate_verdict(gate.status)}: {escape.prose(story.gate_headline(gate))}**"]
    if gate.judgements:
        rows = ["| gate | assertion | on | figure | why |", "| --- | --- | --- | --- | --- |"]
        for judgement in gate.judgements:
            where = escape.span(judgement.layer, in_table=True) if judgement.layer else "the model"
            rows.append(
                f"| {story.judged(gate, judgement)} | {escape.prose(story.assertion(judgement))} | {where} "
                f"| {escape.prose(story.measured_figure(judgement))} | {escape.prose(judgement.reason)} |"
            )
        yield rows


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    """Yield the facts; what has no label of its own continues the one before."""
    facts: list[tuple[str, str]] = []
    for label, sentence in story.facts(report):
        if label:
            facts.append((label, sentence))
        else:
            facts[-1] = (facts[-1][0], f"{facts[-1][1]} ({sentence})")
    yield from facts


def _layers(report: Report, escape: _Escape) -> Iterator[list[str]]:
    if report.layers:
        rows = ["| VQ layer | what it is | usage |", "| --- | --- | --- |"]
        for layer in report.layers:
            told = [story.usage_sentence(u) for u in report.usages(layer.name).values()]
            told += [f"usage unknown from {reason}" for reason in story.unknown_usage(report, layer.name)]
            usage = "<br>".join(escape.prose(sentence) for sentence in told)
            what = escape.prose(story.layer_line(layer))
            rows.append(f"| {escape.span(layer.name, in_table=True)} | {what} | {usage} |")
        yield rows
    if report.candidates:
        yield ["**Nearest candidates** (name the codebook with `--codebook-key KEY`)"]
        yield [
            f"- {escape.span(c.key)} {'×'.join(map(str, c.shape))}: {escape.prose(c.why)}"
            for c in report.candidates
        ]


def _findings(report: Report, escape: _Escape) -> Iterator[list[str]]:
    shown: set[str] = set()
    for root in report.roots():
        yield [f"{_title(root, escape)}  ", escape.prose(root.message)]
        yield _details(root, escape)
        step = story.remedy_code(report, root)
        if root.remedies and root.severity > Severity.NOTE:
            yield [f"Remedy: {escape.span(root.remedies[0])}"]
        if step and step.code and step.remedy not in shown:
            shown.add(step.remedy)
            yield escape.block(step.code)
        symptoms = report.symptoms(root)
        if symptoms:
            yield ["It explains:"]
            yield [
                line
                for s in symptoms
                for line in (
                    f"- {_title(s, escape)}  ",
                    f"  {escape.prose(s.message)}",
                    *(f"  {detail}" for detail in _details(s, escape, root)),
                )
            ]


def _title(finding: Finding, escape: _Escape) -> str:
    where = f" on {escape.span(finding.layer)}" if finding.layer else ""
    name = escape.prose(f"{finding.code} {finding.name}")
    return f"**{finding.rank}. {escape.prose(story.tag(finding))} {name}**{where}"


def _details(finding: Finding, escape: _Escape, root: Finding | None = None) -> list[str]:
    measured = (story.measured(m) for m in finding.measurements)
    rows = [f"{name} {value}" + (f" ({limit})" if limit else "") for name, value, limit in measured]
    lines = [f"- {escape.prose(row)}" for row in rows]
    if finding.decide_with and (root is None or finding.decide_with != root.decide_with):
        lines.append(f"- to be certain: {escape.span(finding.decide_with)}")
    return lines


def _plan(report: Report, escape: _Escape) -> Iterator[list[str]]:
    if report.plan:
        yield ["**Plan, in the order to try**"]
        yield [
            f"{step.step}. {escape.span(step.remedy)} {escape.prose(story.asked_by(step))}: "
            f"{escape.prose(step.how)}"
            for step in report.plan
        ]


def _gaps(report: Report, escape: _Escape) -> Iterator[list[str]]:
    gaps = story.gaps(report)
    if gaps:
        yield ["<details><summary>Not examined</summary>"]
        yield [
            f"- {escape.prose(gap.reason)}: {escape.prose(listing([*gap.kinds, *gap.codes], at_most=12))}"
            + "".join(f"; {escape.span(hint)}" for hint in gap.hints)
            for gap in gaps
        ]
        yield ["</details>"]


RENDERER = Renderer(name="markdown", suffix=".md", render=render, several=several)
