"""What a hostile file chose reaches a reader, but no terminal and no web page obeys it."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from vqdoctor.core.report import Report
from vqdoctor.render import RenderOptions, all_renderers, printable
from vqdoctor.render._text import LONGEST
from vqdoctor.render.markdown import _Escape

UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")


def unsafe(text: str) -> list[str]:
    return [c for c in text if c != "\n" and unicodedata.category(c) in UNSAFE]


@pytest.mark.parametrize("format", sorted(all_renderers()))
@pytest.mark.parametrize("ascii", [False, True])
def test_nothing_that_steers_a_terminal_comes_out(
    reports: dict[str, Report], format: str, ascii: bool
) -> None:
    text = all_renderers()[format].render(reports["hostile"], RenderOptions(ascii=ascii))
    assert unsafe(text) == []
    text.encode("utf-8")


def test_colours_of_a_hostile_report_are_only_ours(reports: dict[str, Report]) -> None:
    text = all_renderers()["rich"].render(reports["hostile"], RenderOptions(color=True))
    assert unsafe(re.sub(r"\x1b\[[\d;]*m", "", text)) == []
    assert "[bold]" in text and r"\x1b[2J" in text, "it is shown as it was written, not swallowed"


def test_json_still_says_exactly_what_the_file_said(reports: dict[str, Report], hostile_text: str) -> None:
    for ascii in (False, True):
        text = all_renderers()["json"].render(reports["hostile"], RenderOptions(ascii=ascii))
        assert json.loads(text)["checkpoint"]["path"] == hostile_text
        assert text.isascii() or not ascii


@given(st.text())
def test_printable_is_one_safe_line(text: str) -> None:
    assert unsafe(printable(text)) == []
    assert "\n" not in printable(text)
    assert printable(text, ascii=True).isascii()


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["C", "Z"])))
def test_printable_leaves_honest_text_alone(text: str) -> None:
    assert printable(text) == text


def test_a_huge_string_cannot_flood_the_screen() -> None:
    assert printable("k" * (LONGEST + 7)) == "k" * LONGEST + "… (7 more characters)"


def prose_tokens(text: str) -> Iterator[str]:
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    for block in parser.parse(text):
        yield block.type
        yield from (token.type for token in block.children or () if token.content != "<!-- -->")


MARKUP = "\\`*_[]()<>#!|~:&@=+-.1\n aw"


@given(st.text(alphabet=MARKUP) | st.text())
def test_prose_in_markdown_stays_prose(text: str) -> None:
    found = set(prose_tokens(f"a {_Escape(ascii=False).prose(text)}"))
    assert found <= {"paragraph_open", "inline", "text", "text_special", "paragraph_close"}


@given(st.text(alphabet=MARKUP))
def test_prose_at_the_start_of_a_line_makes_no_block(text: str) -> None:
    found = set(prose_tokens(_Escape(ascii=False).prose(text)))
    assert found <= {"paragraph_open", "inline", "text", "text_special", "paragraph_close"}


@given(st.text(alphabet=MARKUP, min_size=1))
def test_a_code_span_holds_all_of_its_text(text: str) -> None:
    found = set(prose_tokens(f"a {_Escape(ascii=False).span(text)}"))
    assert found <= {"paragraph_open", "inline", "text", "code_inline", "paragraph_close"}


def test_no_mention_no_html_no_link(reports: dict[str, Report]) -> None:
    text = all_renderers()["markdown"].render(reports["hostile"], RenderOptions())
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    assert set(re.findall(r"</?(\w+)", html)) <= OURS
    escaped = _Escape(ascii=False).prose("see http://x.y, www.z.org or @all")
    assert not re.search(r"http://|www\.|@all", escaped)


OURS = {
    "h3",
    "p",
    "strong",
    "blockquote",
    "br",
    "ul",
    "li",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "code",
    "pre",
    "details",
    "summary",
    "sub",
}
