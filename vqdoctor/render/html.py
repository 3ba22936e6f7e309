"""One page for a browser, a mail or a printer, with pictures and a table for each."""

from collections.abc import Iterable, Iterator, Sequence

from vqdoctor.core.levels import Severity
from vqdoctor.core.picture import Cell, Picture
from vqdoctor.core.report import Report
from vqdoctor.render import _document as nodes
from vqdoctor.render._compose import document, documents
from vqdoctor.render._page import inline, page, safe
from vqdoctor.render._phrases import CRASH
from vqdoctor.render._renderer import Renderer, RenderOptions
from vqdoctor.render._text import number

LARGEST = 1_200_000
"""Characters of pictures and their tables on one page, which stays under 1.5 MB; later ones are left out."""

LEFT_OUT = "further ones are left out, for the size of the page; --layer NAME shows one layer"

_HEAD = '<th scope="col">{}</th>'


def render(report: Report, options: RenderOptions) -> str:
    """Return the report as one page."""
    doc = document(report, options)
    body = "\n".join(_report(doc, _Gallery([options.pictures(report)]), report, 0))
    return page(f"vqdoctor: {doc.verdict.word}, {doc.subject}", body)


def several(reports: Sequence[Report], options: RenderOptions) -> str:
    """Return the reports as one page: a table of all, then each."""
    docs, decision = documents(reports, options)
    gallery = _Gallery([options.pictures(report) for report in reports])
    rows = (
        f'<tr><td><a href="#report-{i}">{safe(doc.subject)}</a></td>'
        f"<td>{_tag(doc.decisions[0]) if doc.decisions else ''}</td><td>{_tag(doc.verdict)}</td></tr>"
        for i, doc in enumerate(docs)
    )
    parts = [
        "<header>",
        f"<h1>{_tag(decision)}: {safe(decision.text)}</h1>" if decision else "<h1>vqdoctor</h1>",
        '<div class="scroll" tabindex="0" role="group" aria-label="All reports"><table>',
        f"<thead><tr>{''.join(map(_HEAD.format, ('checkpoint', 'decision', 'verdict')))}</tr></thead><tbody>",
        *rows,
        "</tbody></table></div></header>",
    ]
    whole = (part for i, doc in enumerate(docs) for part in _main(doc, gallery, reports[i], i))
    body = "\n".join([*parts, '<main id="main">', *whole, "</main>"])
    return page(f"vqdoctor: {len(reports)} reports", body)


class _Gallery:
    """The pictures of all reports of a page, each shown where its layer is, while there is room."""

    def __init__(self, pictures: Sequence[Sequence[Picture]]) -> None:
        self._pictures, self._used, self._shown = pictures, 0, 0
        self.gaps: dict[str, None] = {}

    def of(self, report: int, layer: str | None) -> str:
        """Return the pictures of a layer, or of the model, as a grid; "" where there are none."""
        figures = [self._figure(one) for one in self._pictures[report] if one.layer == layer]
        return "\n".join(['<div class="grid">', *filter(None, figures), "</div>"]) if any(figures) else ""

    def _figure(self, picture: Picture) -> str:
        self._shown += 1
        self.gaps |= {picture.gap: None} if picture.gap else {}
        svg = (
            inline(picture.svg, f"p{self._shown}", f"{picture.title}. {picture.caption}")
            if picture.svg
            else ""
        )
        parts = [
            f'<figure><p class="title">{safe(picture.title)}</p>',
            svg,
            f"<figcaption>{safe(picture.caption)}</figcaption>",
            "<details><summary>Table</summary>",
            _table(picture.head, picture.rows, picture.title),
            "</details></figure>",
        ]
        text = "\n".join(filter(None, parts))
        if self._used + len(text) > LARGEST:
            self.gaps |= {LEFT_OUT: None}
            return ""
        self._used += len(text)
        return text


def _report(doc: nodes.Document, gallery: _Gallery, report: Report, place: int) -> Iterator[str]:
    """Yield the parts of a page of one report."""
    yield "<header>"
    for headline in (*doc.decisions, doc.verdict):
        yield (
            f"<h1>{_tag(headline)}: {safe(headline.text)}</h1>"
            if headline is doc.verdict
            else _line(headline)
        )
    yield f'<p class="soft">{safe(doc.subject)}</p>'
    if doc.next_step:
        yield f"<p>Next: {safe(doc.next_step)}; more: <code>{safe(doc.command)}</code></p>"
    yield "</header>"
    titled = [(i, section.title) for i, section in enumerate(doc.sections) if section.title]
    links = (f'<li><a href="#s{place}-{i}">{safe(title)}</a></li>' for i, title in titled)
    yield f'<nav aria-label="Sections"><ul>{"".join(links)}</ul></nav>'
    yield '<main id="main">'
    yield from _sections(doc, gallery, report, place)
    yield f"</main><footer>{_written(doc)}</footer>"


def _main(doc: nodes.Document, gallery: _Gallery, report: Report, place: int) -> Iterator[str]:
    """Yield one of several reports, as a part of a page."""
    yield f'<article id="report-{place}">'
    yield f"<h2>{safe(doc.subject)}</h2>"
    yield from (_line(headline) for headline in (*doc.decisions, doc.verdict))
    yield from _sections(doc, gallery, report, place)
    yield f'<p class="soft">{_written(doc)}</p></article>'


def _sections(doc: nodes.Document, gallery: _Gallery, report: Report, place: int) -> Iterator[str]:
    """Yield the alarms, the gate and the sections; the model's pictures come before those of the layers."""
    for alarm in doc.alarms:
        yield f'<p><span class="tag bad">{safe(alarm.label)}</span> {safe(alarm.text)}</p>'
    if doc.alarms:
        yield f"<p>{safe(CRASH)}</p>"
    if doc.assertions:
        yield "<section><h2>Gate</h2>"
        head = ("gate", "assertion", "on", "figure", "why")
        rows = ((a.word, a.assertion, a.layer or "the model", a.figure, a.reason) for a in doc.assertions)
        yield _table(head, tuple(rows), "Gate")
        yield "</section>"
    shown = False
    for i, section in enumerate([*doc.sections, *([doc.left] if doc.left else [])]):
        layers = any(isinstance(node, nodes.Layers) for node in section.nodes)
        if layers and (model := gallery.of(place, None)):
            yield f"<section><h2>Model</h2>{model}</section>"
        shown = shown or layers
        yield f'<section id="s{place}-{i}">'
        yield f"<h2>{safe(section.title)}</h2>" if section.title else ""
        inside = [
            part
            for node in section.nodes
            for part in _node(node, gallery, place, folded=section.without_code)
        ]
        yield from (_folded(inside, len(section.nodes)) if section.folded else inside)
        yield "</section>"
    if not shown:
        yield gallery.of(place, None)
    for gap in gallery.gaps:
        yield f'<p class="soft">Pictures: {safe(gap)}</p>'


def _written(doc: nodes.Document) -> str:
    return f"{safe(doc.tally)}. Written by vqdoctor {safe(doc.version)}."


def _folded(inside: Sequence[str], amount: int) -> list[str]:
    return ["<details><summary>Show</summary>", *inside, "</details>"] if amount else []


def _tag(headline: nodes.Headline) -> str:
    return f'<span class="tag {headline.tone}">{safe(headline.word)}</span>'


def _line(headline: nodes.Headline) -> str:
    return f"<p>{_tag(headline)}: {safe(headline.text)}</p>"


def _table(head: Sequence[str], rows: Sequence[Sequence[Cell]], label: str) -> str:
    """Return a table that scrolls by itself, also by the keyboard."""
    numeric = [all(not isinstance(row[i], str) for row in rows) for i in range(len(head))]
    mark = [' class="n"' if is_number else "" for is_number in numeric]
    first = "".join(f'<th scope="col"{m}>{safe(name)}</th>' for m, name in zip(mark, head, strict=True))
    lines = (
        "".join(f"<td{m}>{_cell(cell)}</td>" for m, cell in zip(mark, row, strict=False)) for row in rows
    )
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{safe(label)}, table"><table><thead><tr>'
        f"{first}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def _cell(cell: Cell) -> str:
    return "" if cell is None else safe(cell) if isinstance(cell, str) else safe(number(cell))


def _node(node: nodes.Node, gallery: _Gallery, place: int, *, folded: bool) -> Iterator[str]:
    """Yield a part of a section; `folded` is whether the code of its entries is."""
    match node:
        case nodes.Items():
            yield _list(node.items, folded=folded)
        case nodes.Comparison():
            met = {None: "", True: "yes", False: "no"}
            rows = tuple((row.name, row.before, row.after, row.goal, met[row.met]) for row in node.rows)
            yield _table(("figure", "before", "after", "goal", "met"), rows, "Before and after")
            yield f'<p class="soft">{safe(node.source)}</p>'
        case nodes.Block():
            yield _block(node)
        case _:
            for layer in node.layers:
                yield from _layer(layer, gallery, place)


def _list(items: Sequence[nodes.Item], *, folded: bool) -> str:
    """Return entries as a list; those that have a label, such as a number, need no other mark."""
    mark = ' class="labelled"' if any(item.label for item in items) else ""
    return f"<ul{mark}>{''.join(_item(item, folded=folded) for item in items)}</ul>"


def _item(item: nodes.Item, *, folded: bool) -> str:
    label = f'<span class="tag {item.tone}">{safe(item.label)}</span> ' if item.label else ""
    name = f"<code>{safe(item.name)}</code> " if item.name else ""
    commands = "".join(f" <code>{safe(command)}</code>" for command in item.commands)
    more = _list(item.more, folded=folded) if item.more else ""
    code = _code(item.code)
    code = f"<details><summary>Code</summary>{code}</details>" if code and folded else code
    return f"<li>{label}{name}{safe(item.text)}{commands}{more}{code}</li>"


def _code(code: str) -> str:
    lines = "\n".join(map(safe, code.splitlines()))
    return f'<pre tabindex="0"><code>{lines}</code></pre>' if code else ""


def _layer(layer: nodes.Layer, gallery: _Gallery, place: int) -> Iterator[str]:
    yield f"<h3>{safe(layer.name)}</h3>"
    for text in (layer.about, layer.doubt, *layer.usages, *layer.unknown):
        if text:
            yield f"<p>{safe(text)}</p>"
    if layer.bar:
        bar = layer.bar
        yield f"<p>{number(bar.active)} active, {number(bar.rare)} rare, {number(bar.unused)} unused</p>"
    yield gallery.of(place, layer.name)


def _block(block: nodes.Block, level: int = 3) -> str:
    """Return a finding with its evidence, its remedy and the findings that it explains."""
    tone = {Severity.ERROR: "bad", Severity.WARNING: "warn", Severity.NOTE: "note"}[block.severity]
    where = f" on <code>{safe(block.layers)}</code>" if block.layers else ""
    tag, name = f'<span class="tag {tone}">{safe(block.tag)}</span>', safe(f"{block.code} {block.name}")
    parts = [
        f'<div class="block {block.severity.label}"><h{level}>{block.number}. {tag} {name}{where}</h{level}>',
        f"<p>{safe(block.message)}</p>",
        f"<ul>{''.join(_measured(block.measurements))}</ul>" if block.measurements else "",
        f"<p>{nodes.CERTAIN.capitalize()}: <code>{safe(block.decide_with)}</code></p>"
        if block.decide_with
        else "",
        f"<p>{nodes.REMEDY.capitalize()}: <code>{safe(block.remedy)}</code></p>" if block.remedy else "",
        _code(block.remedy_code),
        f"<p>{nodes.EXPLAINS}</p>" if block.symptoms else "",
        *(_block(symptom, min(6, level + 1)) for symptom in block.symptoms),
        "</div>",
    ]
    return "\n".join(filter(None, parts))


def _told(word: str, code: str) -> str:
    return f"<p>{word.capitalize()}: <code>{safe(code)}</code></p>" if code else ""


def _measured(rows: Iterable[nodes.Measured]) -> Iterator[str]:
    for row in rows:
        limit = ", ".join(filter(None, (row.limit, row.range)))
        against = f" ({safe(limit)})" if limit else ""
        yield f"<li>{safe(row.name)} <strong>{safe(row.value)}</strong>{against}</li>"


RENDERER = Renderer(name="html", suffix=".html", render=render, several=several)
