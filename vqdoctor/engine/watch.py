"""Following a training: the new lines of its trace, and the new checkpoints in its folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vqdoctor.checkpoint.folders import all_in
from vqdoctor.core.comparison import ComparedLayer
from vqdoctor.core.errors import CheckpointError, UserError
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.core.trace import Event, Interval, RunTrace
from vqdoctor.engine.compare import rows_of
from vqdoctor.saved.trace import ENDING, read_trace

News = Interval | Event | ComparedLayer


@dataclass(kw_only=True)
class Followed:
    """A training that is followed.

    Attributes:
        path: its trace, or the folder of its trace and its checkpoints.
        user_model: the user's model, for the checkpoints.
        settings: the user's settings, for the checkpoints.
        trace: the trace as it was last read; None before there is one.
    """

    path: Path
    user_model: UserModel
    settings: Settings
    trace: RunTrace | None = None
    _stamp: tuple[int, int] = (0, 0)
    _step: int = -1
    _events: int = 0
    _seen: dict[Path, tuple[int, int]] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether the monitor that wrote the trace has stopped."""
        return self.trace is not None and self.trace.ended

    def news(self) -> Iterator[News]:
        """Yield the lines and checkpoints since the last call.

        Raises:
            UserError: if the trace cannot be read, or there is neither a trace nor a folder.
        """
        if not self.path.exists():
            raise UserError(f"{self.path}: no such file or folder", "name a trace, or the folder of a run")
        file = self.path
        if self.path.is_dir():
            traces = sorted(self.path.rglob(f"*{ENDING}"), key=lambda found: found.stat().st_mtime_ns)
            yield from self._checkpoints()
            if not traces:
                return
            file = traces[-1]
        state = file.stat()
        if (state.st_mtime_ns, state.st_size) != self._stamp:
            self._stamp = (state.st_mtime_ns, state.st_size)
            yield from self._lines(read_trace(file))

    def _lines(self, trace: RunTrace) -> Iterator[News]:
        if self.trace is not None and trace.start != self.trace.start:
            self._step = min(self._step, trace.start.step)
            self._events = sum(event.step <= trace.start.step for event in trace.events)
        self.trace = trace
        fresh = [row for row in trace.intervals if row.step > self._step]
        lines: list[Interval | Event] = [*fresh, *trace.events[self._events :]]
        yield from sorted(lines, key=lambda line: line.step)
        self._step = max((row.step for row in fresh), default=self._step)
        self._events = len(trace.events)

    def _checkpoints(self) -> Iterator[News]:
        """Yield the rows of checkpoints that are new, or were written again; half a file waits."""
        for path in all_in(self.path):
            with contextlib.suppress(CheckpointError, FileNotFoundError):
                state = path.stat()
                if self._seen.get(path) != (state.st_mtime_ns, state.st_size):
                    self._seen[path] = state.st_mtime_ns, state.st_size
                    yield from rows_of(path, self.user_model, self.settings)
