"""The page for a browser: it holds all, it loads nothing, and what a stranger wrote stays text."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

import pytest

from vqdoctor.core.picture import FAINT, INK, PAPER, Picture
from vqdoctor.core.report import Report
from vqdoctor.render import RenderOptions, all_renderers
from vqdoctor.render.html import LARGEST

VOID = {"meta", "br", "link", "img", "hr", "input"}
SVG = f'<svg width="9" height="9"><g id="a"><path style="fill: {PAPER}; stroke: {FAINT}"/>\
<use xlink:href="#m"/><text style="fill: {INK}">{{}}</text></g><g clip-path="url(#c)"/></svg>'


class Reader(HTMLParser):
    """Reads a page strictly: each tag is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def values(self, *names: str) -> list[str]:
        return [value for _, name, value in self.attributes if name in names]


def picture(**changes: object) -> Picture:
    values: dict[str, object] = {
        "name": "usage", "layer": "vq", "title": "Usage", "caption": "Of the codes.",
        "head": ("code", "share"), "rows": (("a", 0.5), ("b", None)), "svg": SVG.format("text"),
    }  # fmt: skip
    return Picture(**{**values, **changes})  # type: ignore[arg-type]


def shown(report: Report, *pictures: Picture) -> str:
    return all_renderers()["html"].render(report, RenderOptions(pictures=lambda _: pictures))


def test_every_report_is_a_sound_page_that_loads_and_runs_nothing(reports: dict[str, Report]) -> None:
    for report in reports.values():
        page = Reader(shown(report, picture(), picture(layer=None, name="gradient")))
        assert not {"script", "link", "img", "iframe", "object", "embed", "form", "base"} & page.tags.keys()
        links = page.values("href", "src", "xlink:href", "action", "srcset", "data")
        assert all(link.startswith("#") for link in links), links
        assert not [name for _, name, _ in page.attributes if name.startswith("on")]
        ids = page.values("id")
        assert len(ids) == len(set(ids))
        assert {link[1:] for link in page.values("href") if "-m" not in link} <= {*ids}
        assert page.tags["h1"] == page.tags["main"] == page.tags["title"] == 1


def test_it_says_so_to_the_browser(reports: dict[str, Report]) -> None:
    text = shown(reports["collapsed"])
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src &#x27;none&#x27;;") and "script" not in policy
    assert 'name="viewport"' in text and "prefers-color-scheme: dark" in text and "@media print" in text


def test_the_verdict_comes_first_then_causes_with_evidence_then_pictures(reports: dict[str, Report]) -> None:
    text = shown(reports["collapsed"], picture(), picture(layer=None, title="Gradients"))
    places = [text.index(word) for word in (">COLLAPSED<", "gradient ratio", "Gradients<", "Usage<")]
    assert places == sorted(places)


def test_a_table_stands_behind_every_picture(reports: dict[str, Report]) -> None:
    page = Reader(shown(reports["collapsed"], picture(), picture(svg="", gap="no matplotlib")))
    assert page.tags["figure"] == 2 and page.tags["svg"] == 1
    text = shown(reports["collapsed"], picture(rows=(("a", 12345.0), ("b", None))))
    table = text.split("<summary>Table</summary>")[1]
    assert '<td>a</td><td class="n">12,345</td>' in table and '<td>b</td><td class="n"></td>' in table


def test_a_picture_has_the_colours_of_the_page_and_a_name(reports: dict[str, Report]) -> None:
    text = shown(reports["collapsed"], picture(), picture())
    assert not any(color in text.split("</style>")[1] for color in (INK, FAINT, PAPER))
    assert 'role="img" aria-label="Usage. Of the codes."' in text
    assert "url(#p1-c)" in text and 'xlink:href="#p2-m"' in text


def test_a_hostile_name_is_text_everywhere(reports: dict[str, Report], hostile_text: str) -> None:
    hostile = picture(
        layer=reports["hostile"].layers[0].name, title=hostile_text, caption=hostile_text,
        head=(hostile_text, hostile_text), rows=((hostile_text, 1),), svg=SVG.format("x"), gap=hostile_text,
    )  # fmt: skip
    page = Reader(shown(reports["hostile"], hostile))
    assert page.tags["figure"] == 1 and page.tags["script"] == 0


def test_several_reports_are_one_page_with_a_table_of_all(reports: dict[str, Report]) -> None:
    three = [reports["collapsed"], reports["healthy"], reports["hostile"]]
    options = RenderOptions(pictures=lambda _: (picture(),))
    page = Reader(all_renderers()["html"].render_all(three, options))
    assert page.tags["article"] == 3 and page.tags["h1"] == 1
    assert [link for link in page.values("href") if link.startswith("#report")] == [
        "#report-0", "#report-1", "#report-2",
    ]  # fmt: skip
    assert len(page.values("id")) == len({*page.values("id")})


def test_a_page_stays_small_enough_for_a_mail(reports: dict[str, Report]) -> None:
    large = picture(svg=SVG.format("x" * (LARGEST // 3)))
    text = shown(reports["collapsed"], *[large] * 4)
    assert len(text.encode()) < 1_500_000
    assert Reader(text).tags["svg"] == 2 and "further ones are left out" in text


def test_without_matplotlib_one_line_says_how_to_get_pictures(reports: dict[str, Report]) -> None:
    gap = "drawing needs matplotlib, which is not installed here: pip install 'vqdoctor[plots]'"
    text = shown(reports["collapsed"], picture(svg="", gap=gap), picture(svg="", gap=gap))
    assert text.count("pip install") == 1 and text.count("<figure>") == 2


@pytest.mark.parametrize("name", ["gate_failed", "gate_passed"])
def test_a_gate_shows_every_assertion(reports: dict[str, Report], name: str) -> None:
    text = shown(reports[name])
    gate = reports[name].gate
    assert gate is not None
    section = text.split("<h2>Gate</h2>")[1].split("</section>")[0]
    assert section.count("<tr>") == 1 + len(gate.judgements)
