"""The report for a person at a terminal, in a log file, or at 2 a.m.

Everything is indented lines: no boxes that break, no columns that need a wide window. What a reader
needs first stands first (the verdict), and again last, next to the prompt.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.text import Text

from vqdoctor.core.evidence import Usage
from vqdoctor.core.finding import Finding
from vqdoctor.core.gate import Gate, GateStatus
from vqdoctor.core.levels import Severity
from vqdoctor.core.report import LayerSummary, Report
from vqdoctor.core.retraining import Retraining
from vqdoctor.render import _phrases as story
from vqdoctor.render import _repairs as repairs
from vqdoctor.render import _retraining as retraining
from vqdoctor.render._renderer import Renderer, RenderOptions
from vqdoctor.render._text import listing, number, printable

WIDEST = 100
"""Longer lines are hard to read, however wide the terminal is."""

VERDICT_STYLES = {
    "collapsed": "bold red",
    "at-risk": "bold yellow",
    "inconclusive": "bold cyan",
    "healthy": "bold green",
}
GATE_STYLES: dict[GateStatus, str] = {
    "pass": "bold green",
    "fail": "bold red",
    "inconclusive": "bold cyan",
}
JUDGED_STYLES = {
    "pass": "green",
    "fail": "bold red",
    "inconclusive": "bold cyan",
    "warn": "bold yellow",
    "known": "dim",
}
SEVERITY_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.NOTE: "cyan"}

Part = str | tuple[str, str]
"""Text, or text with its style."""


class Page:
    """Lines under each other, wrapped and indented; all text on it is made printable here."""

    def __init__(self, options: RenderOptions) -> None:
        self.ascii = options.ascii
        self.width = max(40, min(options.width, WIDEST))
        self._file = io.StringIO()
        self._console = Console(
            file=self._file,
            width=10_000,  # lines are wrapped here, so that indents hang and code is never broken
            color_system="standard" if options.color else None,
            force_terminal=options.color,
            no_color=not options.color,
            legacy_windows=False,
            highlight=False,
            markup=False,
            emoji=False,
        )

    def line(self, *parts: Part, indent: int = 0, hang: int = 0) -> None:
        """Write one paragraph; its second and later lines stand `hang` further in."""
        text = self._text(parts)
        for i, part in enumerate(text.wrap(self._console, self.width - indent - hang, overflow="fold")):
            part.rstrip()
            self._print(Text(" " * (indent + (hang if i else 0))) + part)

    def labelled(self, label: Part, *parts: Part, indent: int = 0, column: int) -> None:
        """Write a paragraph beside its label; all its lines stand in the column."""
        head = self._text([label])
        head.pad_right(max(0, column - head.cell_len))
        wrapped = self._text(parts).wrap(self._console, self.width - indent - column, overflow="fold")
        for i, part in enumerate(wrapped):
            part.rstrip()
            start = Text(" " * indent) + head if i == 0 else Text(" " * (indent + column))
            self._print(start + part)

    def code(self, code: str, indent: int) -> None:
        """Write lines of code as they are: a broken line could not be copied."""
        for line in code.splitlines():
            self._print(Text(" " * indent) + self._text([(line, "bold")]))

    def heading(self, title: str) -> None:
        """Write a heading, with a blank line before it."""
        self.blank()
        self.line((title.upper(), "bold"))

    def blank(self) -> None:
        """Write an empty line."""
        self._print(Text())

    def glyph(self, fancy: str, plain: str) -> str:
        """Return `fancy`, or `plain` where only ASCII can be shown."""
        return plain if self.ascii else fancy

    def text(self) -> str:
        """Return all that was written."""
        return self._file.getvalue()

    def _text(self, parts: Iterable[Part]) -> Text:
        pairs = ((part, "") if isinstance(part, str) else part for part in parts)
        return Text.assemble(*((printable(text, ascii=self.ascii), style) for text, style in pairs))

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


def render(report: Report, options: RenderOptions) -> str:
    """Return the report as lines of text."""
    page = Page(options)
    if report.gate:
        _gate_line(page, report.gate)
    _retraining(page, report)
    _repairs(page, report)
    _verdict(page, report)
    _crashes(page, report)
    if report.gate:
        page.heading("Gate")
        _judgements(page, report.gate, indent=0)
    page.blank()
    for label, sentence in story.facts(report):
        page.labelled((label, "dim"), sentence, column=10)
    _layers(page, report)
    _findings(page, report)
    _plan(page, report)
    _gaps(page, report)
    _end(page, report)
    return page.text()


def several(reports: Sequence[Report], options: RenderOptions) -> str:
    """Return what was decided on each report and why, and last the whole; one report alone tells more."""
    page = Page(options)
    for report in reports:
        page.line((story.subject(report), "bold"))
        if report.gate:
            _gate_line(page, report.gate, indent=2)
            _judgements(page, report.gate, indent=4)
        _verdict(page, report, indent=2)
        page.blank()
    status = story.gate_status(reports)
    if status:
        word = (f"{story.gate_verdict(status)}: ", GATE_STYLES[status])
        page.line(word, (story.gate_tally(reports), "bold"), hang=2)
    page.line(("more of one: ", "dim"), ("vqdoctor inspect CKPT", "bold"))
    return page.text()


def _gate_line(page: Page, gate: Gate, indent: int = 0) -> None:
    word = (f"{story.gate_verdict(gate.status)}: ", GATE_STYLES[gate.status])
    page.line(word, (story.gate_headline(gate), "bold"), indent=indent, hang=2)


def _retraining(page: Page, report: Report) -> None:
    """Write what a retraining came to: in one line, as a table, and remedy by remedy."""
    done = report.retraining
    if done is None:
        return
    _retrained(page, done)
    rows = retraining.compared(done)
    columns = [(r.name, r.before, r.after) for r in rows] or [("", "", "")]
    name, before, after = (max(map(len, column)) for column in zip(*columns, strict=True))
    page.heading("Before and after")
    for row in rows:
        mark = "" if row.met is None else page.glyph("✓ ", "ok ") if row.met else page.glyph("✗ ", "!! ")
        page.line(
            (f"{row.name:<{name}}  ", "dim"),
            f"{row.before:>{before}} {page.glyph('→', '->')} ",
            (f"{row.after:<{after}}", "bold"),
            (f"  {mark}{row.goal}", "green" if row.met else "bold red"),
            indent=2,
            hang=2,
        )
    page.line((retraining.beside(done), "dim"), indent=2)
    if done.trial:
        page.heading("Trial, best first")
    for tried, figures in retraining.arms(done):
        page.line((tried, "bold"), f"  {figures}", indent=2, hang=2)
    page.heading("Remedies")
    for status, remedy, reason in retraining.repairs(report):
        color = "green" if status == "applied" else "dim"
        page.labelled((status, color), (remedy, "bold"), f"  {reason}", indent=2, column=11)
    page.blank()


def _repairs(page: Page, report: Report) -> None:
    """Write what a fix without retraining did, remedy by remedy and tensor by tensor."""
    if not repairs.shown(report):
        return
    page.line(("FIX: ", "bold"), (repairs.headline(report), "bold"), hang=2)
    page.blank()
    for repair in report.repairs:
        color = "green" if repair.status == "applied" else "dim"
        page.labelled(
            (repairs.status(report, repair), color),
            (repair.remedy, "bold"),
            f"  {repairs.title(repair)}",
            indent=2,
            column=11,
        )
        for name, before, after in repairs.figures(repair):
            page.line((f"{name} ", "dim"), f"{before} → ", (after, "bold"), indent=13, hang=2)
        for change in repair.changes:
            key, what, told = repairs.change(change)
            page.line((f"{key}: ", "dim"), f"{what}; {told}" if told else what, indent=13, hang=2)
    page.blank()


def _retrained(page: Page, done: Retraining) -> None:
    style = "bold green" if done.cured else "bold yellow"
    word = f"{retraining.outcome(done).upper()}: "
    page.line((word, style), (retraining.headline(done), "bold"), hang=2)


def _judgements(page: Page, gate: Gate, indent: int) -> None:
    """Write every assertion with its figure, and why it was judged so."""
    words = [story.judged(gate, judgement) for judgement in gate.judgements]
    for word, judgement in zip(words, gate.judgements, strict=True):
        page.labelled(
            (word, JUDGED_STYLES[word]),
            (story.judged_on(judgement), "bold"),
            f"  {judgement.reason}",
            indent=indent,
            column=max(map(len, words)) + 2,
        )


def _verdict(page: Page, report: Report, indent: int = 0) -> None:
    style = VERDICT_STYLES[report.verdict]
    page.line((f"{story.verdict(report)}: ", style), (story.headline(report), "bold"), indent=indent, hang=2)


def _crashes(page: Page, report: Report) -> None:
    for outcome in story.crashed(report):
        where = f" on {outcome.layer}" if outcome.layer else ""
        page.line(("CRASHED ", "bold red"), f"{outcome.code}{where}: {outcome.reason}", hang=8)
    if story.crashed(report):
        page.line("What these checks look for was not looked for. Please report this bug.", indent=8)


def _layers(page: Page, report: Report) -> None:
    if report.layers:
        page.heading("VQ layers" if len(report.layers) > 1 else "VQ layer")
    for layer in report.layers:
        _layer(page, report, layer)
    if report.candidates:
        page.heading("Nearest candidates")
        for candidate in report.candidates:
            shape = page.glyph("×", "x").join(str(n) for n in candidate.shape)
            page.line((candidate.key, "bold"), f"  {shape}  {candidate.why}", indent=2, hang=2)
        page.line("If one of them is the codebook, name it: ", ("--codebook-key KEY", "bold"), indent=2)


def _layer(page: Page, report: Report, layer: LayerSummary) -> None:
    page.line((layer.name, "bold"), "  ", (story.layer_line(layer), "dim"), hang=2)
    if layer.layout_confidence != "high":
        page.line("a guess; if wrong: --codebook-key KEY, --layout kd|dk or --layer NAME", indent=2)
    usages = report.usages(layer.name)
    for i, usage in enumerate(usages.values()):
        page.line(story.usage_sentence(usage), indent=2, hang=2)
        if i == 0:
            _usage_bar(page, usage)
            _histogram(page, usage)
    for reason in story.unknown_usage(report, layer.name):
        page.line(("usage unknown from ", "dim"), (reason, "dim"), indent=2, hang=2)


def _usage_bar(page: Page, usage: Usage) -> None:
    """Draw the codebook as one bar: active codes, codes used too rarely to be active, unused codes."""
    cells = 32
    active = _cells(usage.active, usage.num_codes, cells)
    rare = min(cells - active, _cells(usage.used - usage.active, usage.num_codes, cells))
    page.labelled(
        ("codes", "dim"),
        (page.glyph("█", "#") * active, "green"),
        (page.glyph("▒", "+") * rare, "yellow"),
        (page.glyph("░", ".") * (cells - active - rare), "dim"),
        f" {number(usage.active)} active, {number(usage.used - usage.active)} rare, "
        f"{number(usage.num_codes - usage.used)} unused",
        indent=2,
        column=8,
    )


def _cells(part: float, whole: float, cells: int) -> int:
    """Scale to cells; what is there at all is seen, and what is not whole does not look whole."""
    if part <= 0 or whole <= 0:
        return 0
    return cells if part >= whole else min(cells - 1, max(1, round(cells * part / whole)))


def _histogram(page: Page, usage: Usage) -> None:
    """Draw the sorted counts as a line of little bars; a dot is a code that is never used."""
    counts = usage.count_quantiles
    if not counts or max(counts) <= 0:
        return
    bars, cells = page.glyph("▁▂▃▄▅▆▇█", ":-=+*#%@"), 32
    picked = [counts[round(i * (len(counts) - 1) / (cells - 1))] for i in range(cells)]
    line = "".join(bars[min(7, int(8 * c / max(counts)))] if c > 0 else page.glyph("·", ".") for c in picked)
    page.labelled(("counts", "dim"), (line, "green"), " least to most used", indent=2, column=8)


def _findings(page: Page, report: Report) -> None:
    causes = [f for f in report.roots() if f.severity > Severity.NOTE]
    notes = [f for f in report.roots() if f.severity <= Severity.NOTE]
    shown: set[str] = set()
    if causes:
        page.heading("What is wrong, causes first")
    for i, root in enumerate(causes):
        if i:
            page.blank()
        _root(page, report, root, shown)
    if notes:
        page.heading("Notes")
        for note in notes:
            _symptom(page, note, None)
            _remedy(page, note, indent=4)


def _root(page: Page, report: Report, root: Finding, shown: set[str]) -> None:
    _title(page, root, None, indent=0)
    page.line(root.message, indent=4)
    _measurements(page, root, indent=4)
    if root.decide_with:
        page.line("to be certain: ", (root.decide_with, "bold"), indent=4, hang=2)
    step = story.remedy_code(report, root)
    _remedy(page, root, indent=4)
    if step and step.code and step.remedy not in shown:
        shown.add(step.remedy)
        page.code(step.code, indent=6)
    symptoms = report.symptoms(root)
    if symptoms:
        page.line(("which explains", "dim"), indent=4)
    for symptom in symptoms:
        _symptom(page, symptom, root)


def _remedy(page: Page, finding: Finding, indent: int) -> None:
    if finding.remedies:
        page.line(("remedy: ", "green"), (finding.remedies[0], "bold green"), indent=indent)


def _symptom(page: Page, finding: Finding, root: Finding | None) -> None:
    indent = 4 if root else 0
    _title(page, finding, root, indent=indent)
    page.line(finding.message, indent=indent + 4)
    _measurements(page, finding, indent=indent + 4)
    if finding.decide_with and (root is None or finding.decide_with != root.decide_with):
        page.line("to be certain: ", (finding.decide_with, "bold"), indent=indent + 4, hang=2)


def _title(page: Page, finding: Finding, root: Finding | None, indent: int) -> None:
    page.labelled(
        (f"{finding.rank}.", "bold"),
        (story.tag(finding), SEVERITY_STYLES[finding.severity]),
        " ",
        (f"{finding.code} {finding.name}", "bold"),
        story.place(finding, root),
        indent=indent,
        column=4,
    )


def _measurements(page: Page, finding: Finding, indent: int) -> None:
    rows = [story.measured(m) for m in finding.measurements]
    if not rows:
        return
    name, value = (max(len(row[i]) for row in rows) for i in (0, 1))
    for row in rows:
        page.line((f"{row[0]:<{name}}  ", "dim"), f"{row[1]:<{value}}  {row[2]}", indent=indent, hang=2)


def _plan(page: Page, report: Report) -> None:
    if not report.plan:
        return
    page.heading("Plan, in the order to try")
    above = {f.remedies[0] for f in report.roots() if f.severity > Severity.NOTE and f.remedies}
    for step in report.plan:
        page.labelled(
            (f"{step.step}.", "bold"),
            (step.remedy, "bold green"),
            (f"  {story.asked_by(step)}", "dim"),
            column=4,
        )
        page.line(step.how, indent=4)
        if step.code and step.remedy not in above:
            page.code(step.code, indent=6)


def _gaps(page: Page, report: Report) -> None:
    gaps = story.gaps(report)
    if not gaps:
        return
    page.heading("Not examined")
    for gap in gaps:
        about = listing([*gap.kinds], at_most=6)
        checks = f"check{'s' if len(gap.codes) > 1 else ''} {listing(gap.codes)}" if gap.codes else ""
        what = "; ".join(x for x in (about, checks) if x)
        page.line(f"{gap.reason}: ", (what, "dim"), indent=2, hang=2)
        for hint in gap.hints:
            page.line(page.glyph("→ ", "-> "), (hint, "bold"), indent=4, hang=3)


def _end(page: Page, report: Report) -> None:
    page.blank()
    page.line((story.tally(report), "dim"))
    causes = [f for f in report.roots() if f.severity > Severity.NOTE]
    if causes:
        word, code = (story.verdict(report), VERDICT_STYLES[report.verdict]), causes[0].code
        page.line(word, f": begin with {code}; more: ", (f"vqdoctor explain {code}", "bold"))
    else:
        _verdict(page, report)
    if report.gate:
        _gate_line(page, report.gate)
    if report.retraining:
        _retrained(page, report.retraining)
        if report.retraining.source:
            page.line(("The file is retrained; your source is as it was.", "bold"))
        for change in report.retraining.source:
            page.line(f"{change.why}:", indent=2, hang=2)
            page.code(change.code, indent=4)


RENDERER = Renderer(name="rich", suffix=".txt", render=render, several=several)
