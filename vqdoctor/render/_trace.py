"""A trace for a person: a line for each interval, a line for each event, and a board that is drawn again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath

from vqdoctor.core.comparison import ComparedLayer
from vqdoctor.core.trace import Event, Interval, RunTrace
from vqdoctor.render._text import number, percent, printable

_BARS = "▁▂▃▄▅▆▇█"
CELLS = 32
"""Columns of the course of a perplexity."""
EVENTS = 5
"""Events at the foot of a board."""


def interval_line(row: Interval) -> str:
    """Return one interval of one layer as a line; unknown figures are left out."""
    perplexity = None if row.perplexity is None else number(row.perplexity)
    if perplexity and row.perplexity_low is not None and row.perplexity_high is not None:
        perplexity += f" ({row.perplexity_low:.0f}–{row.perplexity_high:.0f})"
    figures = {
        "perplexity": perplexity,
        "active": None if row.active is None else number(row.active),
        "largest": None if row.max_share is None else percent(row.max_share),
        "by EMA counts": None if row.counts_perplexity is None else number(round(row.counts_perplexity)),
        "error": None if row.error is None else percent(row.error),
        "gradient": None if row.gradient is None else f"{row.gradient:.2f}",
        "revived": number(row.revived) if row.revived else None,
        "task loss": None if row.task_loss is None else number(row.task_loss),
        "VQ loss": None if row.vq_loss is None else number(row.vq_loss),
    }
    told = ", ".join(f"{name} {value}" for name, value in figures.items() if value is not None)
    return printable(f"step {row.step:,}  {row.layer}: {told}")


def event_line(event: Event) -> str:
    """Return a finding of the monitor as a line."""
    where = "" if event.layer is None else f" in {event.layer}"
    began = "" if event.since == event.step else f" It began at step {event.since:,}."
    remedy = f" Remedy: {event.remedies[0]}." if event.remedies else ""
    return printable(
        f"step {event.step:,}: {event.code}{where}: {event.message}{began}{remedy} "
        f"(vqdoctor explain {event.code})"
    )


def news_line(news: Interval | Event | ComparedLayer) -> str:
    """Return a line of a trace, or a new checkpoint, as a line."""
    if isinstance(news, Interval):
        return interval_line(news)
    if isinstance(news, Event):
        return event_line(news)
    known = "unknown" if news.perplexity is None else number(news.perplexity)
    found = "no finding" if news.finding is None else f"first finding {news.finding}"
    active = "" if news.active is None else f", active {news.active:,} of {news.num_codes:,}"
    return printable(
        f"checkpoint {PurePath(news.path).name}  {news.layer}: perplexity {known}{active}, {found}"
    )


def board(trace: RunTrace) -> str:
    """Return the newest line of each layer with the course of its perplexity, and the last events."""
    return "\n".join(_board(trace))


def _board(trace: RunTrace) -> Iterator[str]:
    for layer in trace.start.layers:
        rows = trace.of(layer.name)
        if rows:
            known = [row.perplexity for row in rows if row.perplexity is not None]
            yield interval_line(rows[-1])
            yield f"  perplexity of {layer.num_codes:,} codes  {_course(known)}"
        else:
            yield printable(f"{layer.name}: no interval yet")
    yield from ("", *map(event_line, trace.events[-EVENTS:])) if trace.events else ()


def _course(values: Sequence[float]) -> str:
    """Return the course of values as bars from zero to the highest."""
    if not values:
        return ""
    shown = [values[i * len(values) // CELLS] for i in range(CELLS)] if len(values) > CELLS else values
    top = max(*shown, 1e-12, values[-1])
    shown = [*shown[:-1], values[-1]]
    return "".join(_BARS[min(int(value / top * len(_BARS)), len(_BARS) - 1)] for value in shown)
