"""The report for a pull request: GitHub's Markdown, short above, details folded."""

import re
from collections.abc import Iterable, Iterator, Sequence

from vqdoctor.core.report import Report
from vqdoctor.render import _document as nodes
from vqdoctor.render._compose import document, documents
from vqdoctor.render._phrases import CRASH, GATE_WORDS
from vqdoctor.render._renderer import Renderer, RenderOptions
from vqdoctor.render._text import number, printable

# Everything that begins markup inside a line. Underscores within a word and colons before a space do not.
_PUNCTUATION = re.compile(r"([\\`*\[\]#|~$]|(?<![^\W_])_|_(?![^\W_])|:(?=[\w/]))")
# What makes a block of the line that it begins: a list, a rule, a heading underlined.
_BLOCK_START = re.compile(r"^(\d*)([-+=.)])(?!\d)")


def render(report: Report, options: RenderOptions) -> str:
    """Return the report as Markdown."""
    return _text(_parts(document(report, options), _Escape(options.ascii)))


def several(reports: Sequence[Report], options: RenderOptions) -> str:
    """Return the reports as Markdown: a table of all, then each."""
    escape = _Escape(options.ascii)
    docs, decision = documents(reports, options)
    head = [_headline(decision, escape)] if decision else []
    rows = (
        (
            escape.span(doc.subject, in_table=True),
            GATE_WORDS[doc.gate] if doc.gate else "",
            doc.verdict.word,
            escape.prose(doc.verdict.text),
        )
        for doc in docs
    )
    table = _table(("checkpoint", "gate", "verdict", "first"), rows)
    return "\n---\n\n".join([_text([*head, table]), *(_text(_parts(doc, escape)) for doc in docs)])


def _text(blocks: Iterable[list[str]]) -> str:
    return "\n\n".join("\n".join(lines) for lines in blocks if lines) + "\n"


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
        python = not code.startswith(("vqdoctor ", "$ "))
        return [f"{fence}python" if python else fence, *lines, fence]


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def _parts(doc: nodes.Document, escape: _Escape) -> Iterator[list[str]]:
    """Yield the blocks of lines that make the report, without the blank lines between them."""
    if doc.gate:
        yield [
            f"**vqdoctor gate: {GATE_WORDS[doc.gate]}**"
        ]  # in words: a badge would be loaded from the network
    yield [f"### vqdoctor: {doc.verdict.word}"]
    yield [f"**{escape.prose(doc.verdict.text)}**"]
    if doc.alarms:
        yield [*(f"> **{a.label}** {escape.prose(a.text)}  " for a in doc.alarms), f"> {CRASH}"]
    for decision in doc.decisions:
        yield _headline(decision, escape)
    if doc.assertions:
        rows = []
        for one in doc.assertions:
            where = escape.span(one.layer, in_table=True) if one.layer else "the model"
            figure, why = escape.prose(one.figure), escape.prose(one.reason)
            rows.append((one.word, escape.prose(one.assertion), where, figure, why))
        yield _table(("gate", "assertion", "on", "figure", "why"), rows)
    for section in doc.sections:
        yield from _section(section, escape)
    if doc.left:
        yield from _section(doc.left, escape)
    if doc.next_step:
        yield [f"Next: {escape.prose(doc.next_step)}; more: {escape.span(doc.command)}"]
    yield [f"<sub>{doc.tally}. Written by vqdoctor {escape.prose(doc.version)}.</sub>"]


def _headline(headline: nodes.Headline, escape: _Escape) -> list[str]:
    return [f"**{headline.word}: {escape.prose(headline.text)}**"]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = (head, ["---"] * len(head), *rows)
    return [f"| {' | '.join(row)} |" for row in lines]


def _section(section: nodes.Section, escape: _Escape) -> Iterator[list[str]]:
    if section.short:
        yield [f"<details><summary>{section.title}</summary>"]
    elif section.title:
        yield [f"**{section.title}**"]
    for node in section.nodes:
        yield from _node(node, escape)
    if section.short:
        yield ["</details>"]


def _node(node: nodes.Node, escape: _Escape) -> Iterator[list[str]]:
    match node:
        case nodes.Items():
            yield [line for item in node.items for line in _item(item, escape)]
        case nodes.Comparison():
            met = {None: "", True: "yes", False: "no"}
            rows = (
                (*map(escape.prose, (row.name, row.before, row.after, row.goal)), met[row.met])
                for row in node.rows
            )
            yield _table(("", "before", "after", "goal", "met"), rows)
            yield [escape.prose(node.source)]
        case nodes.Block():
            yield from _block(node, escape)
        case _:
            yield _table(("VQ layer", "codes and layout", "usage"), (_layer(x, escape) for x in node.layers))


def _item(item: nodes.Item, escape: _Escape) -> list[str]:
    numbered = item.label.endswith(".")
    bullet = f"{item.label} " if numbered else "- "
    label = f"{escape.prose(item.label)}: " if item.label and not numbered else ""
    told = [escape.span(item.name) if item.name else "", escape.prose(item.text) if item.text else ""]
    commands = "".join(f"; {escape.span(command)}" for command in item.commands)
    below = " " * len(bullet)
    return [
        f"{bullet}{label}{' '.join(filter(None, told))}{commands}",
        *(f"{below}{line}" for more in item.more for line in _item(more, escape)),
        *(f"{below}{line}" for line in (escape.block(item.code) if item.code else ())),
    ]


def _layer(layer: nodes.Layer, escape: _Escape) -> tuple[str, ...]:
    told = [*layer.usages, *layer.unknown]
    if layer.bar:
        bar = layer.bar
        told.insert(1, f"{number(bar.active)} active, {number(bar.rare)} rare, {number(bar.unused)} unused")
    about = "<br>".join(escape.prose(text) for text in (layer.about, layer.doubt) if text)
    return escape.span(layer.name, in_table=True), about, "<br>".join(map(escape.prose, told))


def _block(block: nodes.Block, escape: _Escape) -> Iterator[list[str]]:
    yield [f"{_title(block, escape)}  ", escape.prose(block.message)]
    yield _details(block, escape)
    if block.remedy:
        yield [f"{nodes.REMEDY.capitalize()}: {escape.span(block.remedy)}"]
    if block.remedy_code:
        yield escape.block(block.remedy_code)
    if block.symptoms:
        yield [nodes.EXPLAINS]
        yield [
            line
            for symptom in block.symptoms
            for line in (
                f"- {_title(symptom, escape)}  ",
                f"  {escape.prose(symptom.message)}",
                *(f"  {detail}" for detail in _details(symptom, escape)),
            )
        ]


def _title(block: nodes.Block, escape: _Escape) -> str:
    where = f" on {escape.span(block.layers)}" if block.layers else ""
    return f"**{block.number}. {escape.prose(f'{block.tag} {block.code} {block.name}')}**{where}"


def _details(block: nodes.Block, escape: _Escape) -> list[str]:
    lines = []
    for row in block.measurements:
        limit = ", ".join(filter(None, (row.limit, row.range)))
        lines.append(f"- {escape.prose(f'{row.name} {row.value}' + (f' ({limit})' if limit else ''))}")
    if block.decide_with:
        lines.append(f"- {nodes.CERTAIN}: {escape.span(block.decide_with)}")
    return lines


RENDERER = Renderer(name="markdown", suffix=".md", render=render, several=several)
