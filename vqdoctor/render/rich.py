"""The report for a person at a terminal, in a log file, or at 2 a.m.

Everything is indented lines: no boxes that break, no columns that need a wide window. The verdict, which a
reader needs first, is the first line, and again the last one, next to the prompt.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.render import _document as nodes
from vqdoctor.render._compose import document, documents
from vqdoctor.render._phrases import CRASH
from vqdoctor.render._renderer import Renderer, RenderOptions
from vqdoctor.render._text import number, printable

WIDEST = 120
"""Longer lines are hard to read, however wide the terminal is."""

CELLS = 32
"""Columns of a bar."""
DRAWN = 3
"""VQ layers at most that have their bars; of more, one line each is read at a glance."""

STYLES: Mapping[nodes.Tone, str] = {
    "plain": "bold",
    "good": "bold green",
    "note": "cyan",
    "open": "bold cyan",
    "warn": "black on yellow",  # yellow letters cannot be read on white
    "bad": "bold red",
    "faint": "dim",
}
SEVERITY_TONES: Mapping[Severity, nodes.Tone] = {
    Severity.ERROR: "bad",
    Severity.WARNING: "warn",
    Severity.NOTE: "note",
}

Part = str | tuple[str, str]
"""Text, or text with its style."""


class Page:
    """Lines under each other, wrapped and indented; all text on it is made printable here."""

    def __init__(self, options: RenderOptions) -> None:
        self.ascii, self.verbose = options.ascii, options.verbose
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

    def line(self, *parts: Part, indent: int = 0, hang: int = 0, label: Part = "") -> None:
        """Write a paragraph: its second and later lines stand `hang` further in, a label before the first."""
        first = self._text([label])
        if label:
            first.pad_right(max(0, hang - first.cell_len))
        wrapped = self._text(parts).wrap(self._console, self.width - indent - hang, overflow="fold")
        for i, part in enumerate(wrapped or [Text()]):
            part.rstrip()
            line = Text(" " * indent) + first + part if i == 0 else Text(" " * (indent + hang)) + part
            line.rstrip()
            self._print(line)

    def code(self, code: str, indent: int) -> None:
        """Write lines of code as they are: a broken line could not be copied."""
        for line in code.splitlines():
            self._print(Text(" " * indent) + self._text([(line, "bold")]))

    def heading(self, title: str) -> None:
        """Write a blank line, a heading and a rule after it; without a title the blank line alone."""
        self._print(Text())
        if title:
            rest = self.width - cell_len(title) - 1
            self.line((title.upper(), "bold"), *([(f" {'─' * rest}", "dim")] if rest > 0 else []))

    def headline(self, headline: nodes.Headline, indent: int = 0) -> None:
        """Write a decision and its reason."""
        word = (f"{headline.word}: ", STYLES[headline.tone])
        self.line(word, (headline.text, "bold"), indent=indent, hang=2)

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
    doc, page = document(report, options), Page(options)
    for headline in (*doc.decisions, doc.verdict):
        page.headline(headline)
    for alarm in doc.alarms:
        page.line(alarm.text, label=(f"{alarm.label} ", STYLES[alarm.tone]), hang=8)
    if doc.alarms:
        page.line(CRASH, indent=8)
    if doc.assertions:
        page.heading("Gate")
        _assertions(page, doc.assertions)
    for section in doc.sections:
        _section(page, section)
    page.heading("")
    page.line((doc.tally, "dim"))
    for headline in () if doc.gate else doc.decisions:
        page.headline(headline)
    if doc.next_step:
        word = (doc.verdict.word, STYLES[doc.verdict.tone])
        page.line(word, f": {doc.next_step}; more: ", (doc.command, "bold"))
    else:
        page.headline(doc.verdict)
    for headline in doc.decisions if doc.gate else ():  # what a gate decides is what its user waits for
        page.headline(headline)
    if doc.left:
        _section(page, doc.left)
    return page.text()


def several(reports: Sequence[Report], options: RenderOptions) -> str:
    """Return the decision on each report and its reasons, then the whole; a single report has details."""
    page = Page(options)
    docs, decision = documents(reports, options)
    for doc in docs:
        page.line((doc.subject, "bold"))
        for headline in doc.decisions:
            page.headline(headline, indent=2)
        _assertions(page, doc.assertions, indent=4)
        page.headline(doc.verdict, indent=2)
        page.heading("")
    if decision:
        page.headline(decision)
    page.line(("details of one: ", "dim"), ("vqdoctor inspect CKPT", "bold"))
    return page.text()


def _section(page: Page, section: nodes.Section) -> None:
    page.heading(section.title)
    for i, node in enumerate(section.short if section.folded else section.nodes):
        if i and isinstance(node, nodes.Block) and node.severity > Severity.NOTE:
            page.heading("")
        if section.without_code and isinstance(node, nodes.Items):
            _items(page, [_brief(item) for item in node.items])
            if any(item.code for item in node.items):
                page.line(("-v shows the code of every step", "dim"), indent=4)
        else:
            _node(page, node)


def _node(page: Page, node: nodes.Node) -> None:
    match node:
        case nodes.Items():
            _items(page, node.items)
        case nodes.Comparison():
            _comparison(page, node)
        case nodes.Block():
            _block(page, node)
        case _:
            for layer in node.layers:
                _layer(page, layer, drawn=page.verbose or len(node.layers) <= DRAWN)


def _assertions(page: Page, assertions: Sequence[nodes.Assertion], indent: int = 0) -> None:
    """Write every assertion with its figure, and why it was judged so."""
    column = max((len(one.word) for one in assertions), default=0) + 2
    for one in assertions:
        label = (one.word, STYLES[one.tone])
        page.line((one.about, "bold"), f"  {one.reason}", label=label, indent=indent, hang=column)


def _items(page: Page, items: Sequence[nodes.Item]) -> None:
    column = max((len(item.label) for item in items), default=0) + 2
    for item in items:
        indent, label = (0, (item.label, STYLES[item.tone])) if item.label else (2, "")
        below = indent + column
        gap = "  " if item.name and item.text else ""
        page.line((item.name, "bold"), gap, item.text, label=label, indent=indent, hang=column)
        for more in item.more:
            lead = f"{more.label} " if more.label else ""
            gap = ": " if more.name else ""
            hang = 2 if more.label or more.name else 0
            page.line((f"{lead}{more.name}{gap}", "dim"), more.text, indent=below, hang=hang)
        for command in item.commands:
            page.line((command, "bold"), label="→ ", indent=below, hang=3)
        page.code(item.code, indent=below + 2)


def _brief(item: nodes.Item) -> nodes.Item:
    """Return an entry as one paragraph, without its code."""
    told = (item.text, *(more.text for more in item.more))
    return replace(item, text=": ".join(filter(None, told)), more=(), code="")


def _comparison(page: Page, node: nodes.Comparison) -> None:
    columns = [(row.name, row.before, row.after) for row in node.rows] or [("", "", "")]
    name, before, after = (max(map(len, column)) for column in zip(*columns, strict=True))
    for row in node.rows:
        mark = "" if row.met is None else "✓ " if row.met else "✗ "
        page.line(
            (f"{row.name:<{name}}  ", "dim"),
            f"{row.before:>{before}} {'→' if row.after else ' '} ",
            (f"{row.after:<{after}}", "bold"),
            (f"  {mark}{row.goal}", "green" if row.met else "bold red"),
            indent=2,
            hang=2,
        )
    page.line((node.source, "dim"), indent=2)


def _layer(page: Page, layer: nodes.Layer, *, drawn: bool) -> None:
    page.line((layer.name, "bold"), "  ", (layer.about, "dim"), hang=2)
    if layer.doubt:
        page.line(layer.doubt, indent=2, hang=2)
    for i, usage in enumerate(layer.usages if drawn else layer.usages[:1]):
        page.line(usage, indent=2, hang=2)
        if i == 0 and layer.bar and drawn:
            _bar(page, layer.bar)
    for reason in layer.unknown:
        page.line((reason, "dim"), indent=2, hang=2)


def _bar(page: Page, bar: nodes.UsageBar) -> None:
    """Draw the codebook as one bar, and the sorted counts as little bars; a dot is a code never used."""
    whole = bar.active + bar.rare + bar.unused
    active = _cells(bar.active, whole, CELLS)
    rare = min(CELLS - active, _cells(bar.rare, whole, CELLS))
    page.line(
        ("█" * active, "green"),
        ("▒" * rare, "magenta"),
        ("░" * (CELLS - active - rare), "dim"),
        f" {number(bar.active)} active, {number(bar.rare)} rare, {number(bar.unused)} unused",
        label=("codes", "dim"),
        indent=2,
        hang=8,
    )
    if bar.counts and max(bar.counts) > 0:
        picked = [bar.counts[round(i * (len(bar.counts) - 1) / (CELLS - 1))] for i in range(CELLS)]
        line = "".join("▁▂▃▄▅▆▇█"[min(7, int(8 * (c / max(bar.counts))))] if c > 0 else "·" for c in picked)
        page.line((line, "green"), " least to most used", label=("counts", "dim"), indent=2, hang=8)


def _cells(part: float, whole: float, cells: int) -> int:
    """Scale to cells: a part above 0 is seen, and a part below the whole does not look whole."""
    if part <= 0 or whole <= 0:
        return 0
    return cells if part >= whole else min(cells - 1, max(1, round(cells * part / whole)))


def _block(page: Page, block: nodes.Block, root: nodes.Block | None = None) -> None:
    indent = 4 if root else 0
    page.line(
        (block.tag, STYLES[SEVERITY_TONES[block.severity]]),
        " ",
        (f"{block.code} {block.name}", "bold"),
        f" on {block.layers}" if block.layers and (root is None or root.layers != block.layers) else "",
        label=(f"{block.number}.", "bold"),
        indent=indent,
        hang=4,
    )
    indent += 4
    page.line(block.message, indent=indent)
    rows = block.measurements if page.verbose else _decisive(block, root)
    name = max((len(row.name) for row in rows), default=0)
    value = max((len(row.value) for row in rows), default=0)
    for row in rows:
        limit = "  ".join(filter(None, (row.limit, row.range)))
        page.line((f"{row.name:<{name}}  ", "dim"), f"{row.value:<{value}}  {limit}", indent=indent, hang=2)
    if block.decide_with:
        page.line(f"{nodes.CERTAIN}: ", (block.decide_with, "bold"), indent=indent, hang=2)
    if block.remedy:
        page.line((f"{nodes.REMEDY}: ", "green"), (block.remedy, "bold green"), indent=indent)
    page.code(block.remedy_code, indent=indent + 2)
    if block.symptoms:
        page.line((nodes.EXPLAINS, "dim"), indent=indent)
    for symptom in block.symptoms:
        _block(page, symptom, block)


def _decisive(block: nodes.Block, root: nodes.Block | None) -> list[nodes.Measured]:
    """Return the measurements that a message leaves out: a cause's limits, and the ranges of the others."""
    if root is None and block.severity > Severity.NOTE:
        return [row for row in block.measurements if row.limit] or list(block.measurements[:1])
    return [row for row in block.measurements if row.limit and row.range]


RENDERER = Renderer(name="rich", suffix=".txt", render=render, several=several)
