"""The checkpoints of a training side by side: usage and movement of the codes, and where causes begin."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from vqdoctor.core.comparison import ComparedLayer, Comparison
from vqdoctor.core.picture import Cell, Picture
from vqdoctor.plots._curves import Line, curves
from vqdoctor.plots._plot import BLUE, GREEN, VERMILLION, Drawing, picture

LONGEST = 24
"""Letters of the names along one mark."""
HEIGHT = 3.4
HEAD = (
    "perplexity [codes]", "95 % from", "to", "active codes", "K", "moved since the one before",
    "moved since the reference", "causes that begin",
)  # fmt: skip


def comparison_pictures(comparison: Comparison, *, png: bool = False) -> tuple[Picture, ...]:
    """Return the pictures of a comparison, layer by layer; a single point is not drawn."""
    layers = dict.fromkeys(row.layer for row in comparison.rows)
    return tuple(
        picture(drawing, "comparison", layer, png=png)
        for layer in layers
        for drawing in _drawings(comparison, layer)
    )


def _drawings(comparison: Comparison, layer: str) -> Iterator[Drawing]:
    """Yield the usage and the movement of a layer's codes over the checkpoints."""
    rows = [row for row in comparison.rows if row.layer == layer]
    first = min((row.rank for row in rows if row.rank is not None), default=None)
    rows = [row for row in rows if row.rank in (None, first)]
    steps = [row.step for row in rows if row.step is not None]
    by_step = len(steps) == len(rows) and all(a < b for a, b in itertools.pairwise(steps))
    at: list[float] = [*steps] if by_step else [*range(1, len(rows) + 1)]
    if len(rows) < 2:
        return
    where = dict(zip((row.path for row in rows), at, strict=True))
    marks: dict[float, str] = {}
    for began in comparison.began:
        if began.root and began.layer in (layer, None) and began.path in where:
            place = where[began.path]
            marks[place] = f"{marks[place]}, {began.code}" if place in marks else began.code
    table = _table(rows, at, marks)
    x = "optimizer steps" if by_step else "checkpoints, in their order"
    notes = "A cause is marked at the first checkpoint that has it." if marks else "No cause begins here."
    if first is not None:
        notes += f" The files are those of process {first}."
    shown = {p: name if len(name) <= LONGEST else f"{name[:LONGEST]}…" for p, name in marks.items()}
    size = max(row.num_codes for row in rows)
    usage, movement = _usage(rows, at, size), _movement(rows, at)
    most = max((way for line in movement for _, way in line.points), default=0.0)
    both = (
        curves(
            usage,
            title="Usage over the checkpoints",
            caption=f"Perplexity with its 95 % interval, and active codes. K is {size:,}. {notes}",
            x=x,
            y="codes",
            top=size * 1.08,
            part="usage",
            marks=shown,
        ),
        curves(
            movement,
            title="Movement of the codes",
            caption=f"Root mean square way of the codes, over their distance from their mean. {notes}",
            x=x,
            y="% of the distance from the mean",
            top=most * 1.08 or 1.0,
            part="movement",
            marks=shown,
        ),
    )
    for drawing, lines in zip(both, (usage, movement), strict=True):
        if lines[0].points or lines[1].points:
            yield replace(drawing, head=(x, *HEAD), rows=table, height=HEIGHT)


def _usage(rows: Sequence[ComparedLayer], at: Sequence[float], size: int) -> tuple[Line, ...]:
    known = [(x, row) for x, row in zip(at, rows, strict=True) if row.perplexity is not None]
    ends = [(x, row.perplexity_low, row.perplexity_high) for x, row in known]
    return (
        Line(
            label="perplexity, 95 %",
            points=[(x, row.perplexity or 0.0) for x, row in known],
            color=BLUE,
            style="o-",
            band=[(x, low, high) for x, low, high in ends if low is not None and high is not None],
        ),
        Line(
            label="active",
            points=[(x, row.active) for x, row in known if row.active is not None],
            color=GREEN,
            style="s--",
        ),
        Line(label="K", points=[(at[0], size), (at[-1], size)], color=VERMILLION, style=":"),
    )


def _movement(rows: Sequence[ComparedLayer], at: Sequence[float]) -> tuple[Line, ...]:
    pairs = list(zip(at, rows, strict=True))
    return (
        Line(
            label="since the checkpoint before",
            points=[(x, 100 * row.moved) for x, row in pairs if row.moved is not None],
            color=BLUE,
            style="o-",
        ),
        Line(
            label="since the reference",
            points=[(x, 100 * row.from_reference) for x, row in pairs if row.from_reference is not None],
            color=VERMILLION,
            style="s--",
        ),
    )


def _table(
    rows: Sequence[ComparedLayer], at: Sequence[float], marks: Mapping[float, str]
) -> tuple[tuple[Cell, ...], ...]:
    return tuple(
        (
            x,
            row.perplexity,
            row.perplexity_low,
            row.perplexity_high,
            row.active,
            row.num_codes,
            row.moved,
            row.from_reference,
            marks.get(x, ""),
        )
        for x, row in zip(at, rows, strict=True)
    )
