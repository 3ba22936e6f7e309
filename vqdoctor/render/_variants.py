"""The variants of an ablation as text, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable

from vqdoctor.core.codec import encode
from vqdoctor.core.variants import Variants
from vqdoctor.render._text import count, printable

HEAD = ("variant", "accuracy", "loss", "perplexity", "ece", "codebook")


def variants_text(found: Variants) -> str:
    """Return a headline and a table for a terminal."""
    rows = [HEAD, *_rows(found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([_headline(found), "", *(line.rstrip() for line in lines)]) + "\n"


def variants_markdown(found: Variants) -> str:
    """Return the same as Markdown."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in _rows(found)]
    table = [f"| {' | '.join(row)} |" for row in (HEAD, ["---"] * len(HEAD), *rows)]
    return "\n".join([f"**{_headline(found)}**", "", *table]) + "\n"


def variants_json(found: Variants) -> str:
    """Return the variants with their judgements as JSON."""
    return json.dumps(encode(found), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


VARIANT_FORMATS: dict[str, Callable[[Variants], str]] = {
    "rich": variants_text,
    "markdown": variants_markdown,
    "json": variants_json,
}
"""The formats that show variants."""


def _headline(found: Variants) -> str:
    names = ", ".join(printable(variant.name) for variant in found.collapsed)
    of = count(len(found.variants), "variant")
    if names:
        return f"COLLAPSED: {len(found.collapsed)} of {of}: {names}"
    return f"NOT COLLAPSED: none of {of}" if found.known else f"INCONCLUSIVE: no perplexity in {of}"


def _rows(found: Variants) -> list[tuple[str, ...]]:
    return [
        (
            printable(variant.name),
            *(f"{variant.figures[name]:.4g}" if name in variant.figures else "–" for name in HEAD[1:5]),
            f"{variant.state}: {variant.reason}",
        )
        for variant in found.variants
    ]
