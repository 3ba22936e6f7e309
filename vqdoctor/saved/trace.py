"""The file of a trace: appended line by line, whole after a kill, and never larger than a few MB."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from vqdoctor.core.codec import decode, encode
from vqdoctor.core.errors import UserError
from vqdoctor.core.files import beside
from vqdoctor.core.trace import SCHEMA, End, Event, Interval, RunTrace, Start, TraceLine

MOST = 8192
"""Lines of intervals in a file, about 500 bytes each. Beyond, every second old interval is left out."""
NEWEST = 1024
"""Lines at the end that are never left out."""
ENDING = ".vqtrace.jsonl"
"""How the name of a trace ends."""


def read_trace(path: Path) -> RunTrace:
    """Read a trace, whose last line may be torn or still to be written.

    Raises:
        UserError: if it cannot be read, is not a trace, or a line before the last is damaged.
    """
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}", f"name a trace, such as run{ENDING}") from error
    start: Start | None = None
    intervals: list[Interval] = []
    events: list[Event] = []
    ended = False
    for line in _lines(path, text):
        ended = isinstance(line, End)
        if isinstance(line, Start):
            start = line
            intervals = [row for row in intervals if row.step <= line.step]
            events = [event for event in events if event.step <= line.step]
        elif isinstance(line, Interval):
            intervals.append(line)
        elif isinstance(line, Event):
            events.append(line)
    if start is None:
        raise UserError(f"{path}: is not a trace", "vqdoctor.Monitor(model, out=…) writes one")
    return RunTrace(start=start, intervals=tuple(intervals), events=tuple(events), ended=ended)


def _lines(path: Path, text: str) -> Iterator[TraceLine]:
    """Yield the lines; what follows the last line break was not written whole."""
    whole = text.split("\n")[:-1]
    for number, raw in enumerate(whole, start=1):
        try:
            plain = json.loads(raw)
            if isinstance(plain, dict) and plain.get("kind") == Start.kind and plain.get("schema") != SCHEMA:
                what = f"{path}: schema {plain.get('schema')!r} is not a trace that this version reads"
                raise UserError(what, f"it reads schema {SCHEMA}")
            yield decode(TraceLine, plain, f"line {number} of {path}")
        except (ValueError, RecursionError):
            raise UserError(f"{path}: line {number} is not JSON", "name an undamaged trace") from None


class TraceWriter:
    """Appends to the file of a trace; each line is in the hands of the system when `add` returns.

    Attributes:
        path: the file.
        told: the events of the training before, of which this one is the next part.
    """

    def __init__(self, path: Path, start: Start) -> None:
        """Start a trace, or go on with the one that the file holds: steps after the start's are void.

        Raises:
            UserError: if the file is not a trace, or cannot be written.
        """
        self.path = path
        try:
            had = read_trace(path) if path.exists() and path.stat().st_size else None
            kept = [] if had is None else [row for row in had.intervals if row.step <= start.step]
            self.told = [] if had is None else [event for event in had.events if event.step <= start.step]
            self._rewrite(start, kept, self.told)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}", "write the trace elsewhere") from error

    def add(self, *lines: TraceLine) -> None:
        """Append lines, and thin the file where it has become too long."""
        with self.path.open("ab") as file:
            file.write(_text(lines))
        self._intervals += sum(isinstance(line, Interval) for line in lines)
        if self._intervals > MOST:
            trace = read_trace(self.path)
            self._rewrite(trace.start, thinned(trace.intervals), trace.events)

    def _rewrite(self, start: Start, intervals: Iterable[Interval], events: Iterable[Event]) -> None:
        rows = sorted([*intervals, *events], key=lambda line: line.step)
        with beside(self.path.resolve()) as temporary:
            temporary.write_bytes(_text([start, *rows]))
            temporary.replace(self.path.resolve())
        self._intervals = sum(isinstance(row, Interval) for row in rows)


def thinned(rows: Iterable[Interval]) -> list[Interval]:
    """Return the rows without every second one of the old steps; the first and the newest stay."""
    rows = list(rows)
    old = sorted({row.step for row in rows[:-NEWEST]} - {row.step for row in rows[-NEWEST:]})
    dropped = set(old[1::2])
    return [row for row in rows if row.step not in dropped]


def _text(lines: Iterable[TraceLine]) -> bytes:
    return "".join(json.dumps(encode(line), allow_nan=False) + "\n" for line in lines).encode()
