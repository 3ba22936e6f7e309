"""A comparison of checkpoints as a table, for a terminal, a page, a spreadsheet or a script."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import PurePath

from vqdoctor.core.codec import encode
from vqdoctor.core.comparison import ComparedLayer, Comparison, Ranks
from vqdoctor.render._renderer import RenderOptions
from vqdoctor.render._text import number, percent, printable

HEAD = ("checkpoint", "step", "layer", "perplexity", "active", "dead", "largest", "moved", "first finding")


def _cells(row: ComparedLayer, *, reference: bool) -> tuple[str, ...]:
    """Return a row as text, a dash for what is unknown."""

    def shown(value: float | None, write: Callable[[float], str] = number) -> str:
        return "–" if value is None else write(value)

    perplexity = shown(row.perplexity)
    if row.perplexity_low is not None and row.perplexity_high is not None:
        perplexity += f" ({row.perplexity_low:.0f}–{row.perplexity_high:.0f})"
    cells = (
        PurePath(row.path).name,
        shown(row.step),
        row.layer,
        perplexity,
        "–" if row.active is None else f"{row.active} of {row.num_codes}",
        shown(row.dead),
        shown(row.max_share, percent),
        shown(row.moved, percent),
    )
    since = f"{shown(row.from_reference, percent)} ({shown(row.moved_from_reference)} codes)"
    return (*cells, *([since] if reference else []), row.finding or "none")


def _head(comparison: Comparison) -> tuple[str, ...]:
    return HEAD if comparison.reference is None else (*HEAD[:-1], "since reference", HEAD[-1])


def _told(comparison: Comparison) -> Iterator[str]:
    """Yield the lines under the table: which finding began where, and which came first."""
    unknown = sum(row.perplexity is None for row in comparison.rows)
    if unknown:
        yield (
            f"The usage is unknown in {unknown} of {len(comparison.rows)} rows: without --data or --task a "
            "collapse does not show there."
        )
    if not comparison.began:
        yield "No checkpoint has a warning or an error" + (" that its file shows." if unknown else ".")
    for place, began in enumerate(comparison.began):
        where = "" if began.layer is None else f" in {began.layer}"
        end = f"to {_at(began.last, began.last_step)}" if began.last != comparison.rows[-1].path else "on"
        symptom = "" if began.root else ", a symptom"
        told = f"{began.severity.label} {began.code} {began.name}{where}{symptom}"
        yield f"{'Then: ' if place else 'First:'} {told}, from {_at(began.path, began.step)} {end}"
    yield from map(_agreement, comparison.ranks)
    last = {row.layer: row for row in comparison.rows if row.farthest}
    for row in last.values():
        codes = ", ".join(f"{moved.code} by {percent(moved.way)}" for moved in row.farthest)
        yield (
            f"Since the reference {row.moved_from_reference:,} of {row.num_codes:,} codes of {row.layer} "
            f"moved in {PurePath(row.path).name}; farthest: {codes}"
        )
    yield from (f"Error: {error}" for error in comparison.errors)


def _agreement(ranks: Ranks) -> str:
    """Return whether the files of several processes agree, as a line."""
    where = f"The {ranks.files} processes of {PurePath(ranks.path).name}"
    if not ranks.differing:
        return f"{where} have the same codebook in {ranks.layer}."
    return (
        f"{where} disagree in {ranks.layer} (VQ109): {ranks.differing} have another codebook than the first, "
        f"with up to {ranks.codes:,} other codes; the median way is {ranks.worst:.2g} times their spread."
    )


def _at(path: str, step: int | None) -> str:
    """Return the name of a checkpoint: its step where that is known."""
    return PurePath(path).name if step is None else f"step {step:,}"


def _rich(comparison: Comparison, options: RenderOptions) -> str:
    """Return aligned columns; names that strangers chose are made printable."""
    reference = comparison.reference is not None
    table = [_head(comparison), *(_cells(row, reference=reference) for row in comparison.rows)]
    shown = [[printable(cell, ascii=options.ascii) for cell in line] for line in table]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in shown
    ]
    if options.color:
        lines[0] = f"\x1b[1m{lines[0]}\x1b[0m"
    told = [printable(line, ascii=options.ascii) for line in _told(comparison)]
    return "\n".join([*lines, "", *told, ""])


def _markdown(comparison: Comparison, options: RenderOptions) -> str:
    """Return a table of Markdown."""
    reference = comparison.reference is not None
    table = [_head(comparison), *(_cells(row, reference=reference) for row in comparison.rows)]
    lines = ["| " + " | ".join(printable(c).replace("|", "\\|") for c in line) + " |" for line in table]
    lines.insert(1, "|" + " --- |" * len(table[0]))
    return "\n".join([*lines, "", *(f"- {printable(line)}" for line in _told(comparison)), ""])


def _json(comparison: Comparison, _: RenderOptions) -> str:
    """Return the comparison itself."""
    return json.dumps(encode(comparison), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _csv(comparison: Comparison, _: RenderOptions) -> str:
    """Return a line for each checkpoint and layer, with the names of the JSON; unknown is empty."""
    names = [field.name for field in fields(ComparedLayer)]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_safe(getattr(row, name)) for name in names] for row in comparison.rows)
    return file.getvalue()


def _safe(value: object) -> object:
    """Return a cell that no spreadsheet takes for a formula."""
    if isinstance(value, tuple):  # the codes that moved farthest
        value = " ".join(f"{moved.code}:{moved.way:.6g}" for moved in value)
    text = printable(value) if isinstance(value, str) else value
    return f"'{text}" if isinstance(text, str) and text[:1] in ("=", "+", "-", "@") else text


COMPARISON_FORMATS: Mapping[str, Callable[[Comparison, RenderOptions], str]] = {
    "rich": _rich,
    "json": _json,
    "markdown": _markdown,
    "csv": _csv,
}
"""How a comparison is written, by the name of the format."""
