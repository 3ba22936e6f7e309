"""The docs of a check, from its docstring to the width of a terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

_ITEM = re.compile(r"([-*]|\d+\.) ")


def section(doc: str, title: str) -> str:
    """Return the text under the heading `## title`; "" where there is none."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", doc, re.MULTILINE | re.DOTALL)
    return textwrap.dedent(found[1]).strip() if found else ""


def reflow(text: str, width: int, indent: str) -> Iterator[str]:
    """Fill paragraphs and list items to the width; indented code and tables stay as they are."""
    for i, block in enumerate(re.split(r"\n\s*\n", text)):
        if i:
            yield ""
        lines = block.splitlines()
        if all(line.startswith(("    ", "|", "```")) for line in lines):
            yield from (indent + line for line in lines)
            continue
        for item in _items(lines):
            hang = indent + "  " if _ITEM.match(item) else indent
            yield from textwrap.wrap(
                item, width + len(indent), initial_indent=indent, subsequent_indent=hang,
                break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip


def _items(lines: list[str]) -> Iterator[str]:
    """Yield the paragraphs and list items of a block, each on one line."""
    item = ""
    for line in lines:
        if _ITEM.match(line) and item:
            yield item
            item = ""
        item = f"{item} {line.strip()}".strip()
    if item:
        yield item
