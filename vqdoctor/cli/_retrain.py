"""The part of `vqdoctor fix` that retrains: its progress on standard error, and its picture."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqdoctor.cli._options import Ended
from vqdoctor.cli._output import be_heard, complain, is_terminal, progress, stdout_elsewhere
from vqdoctor.core.errors import MissingPackageError
from vqdoctor.core.exit_codes import ExitCode
from vqdoctor.core.launcher import Launched
from vqdoctor.core.report import Report
from vqdoctor.core.retraining import STOPPING, Epoch
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.render import printable

if TYPE_CHECKING:  # needs torch
    from vqdoctor.engine.retrain import Watcher


SECONDS_A_LINE = 30.0
"""Between two lines of progress in a log file."""


def retrained(path: Path, output: Path, settings: Settings, user_model: UserModel) -> Report:
    """Retrain a checkpoint's model into another file, and return the report of that file.

    A dry run trains nothing; the report is the input's.

    Raises:
        UserError: if the engine cannot retrain it.
        MissingPackageError: if torch is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        raise MissingPackageError("torch", "retraining", "torch")
    from vqdoctor.engine.retrain import OtherHasTold, rehearse, retrain
    from vqdoctor.training.resume import state_path

    data = settings.batch
    if settings.dry_run:
        with progress() as say:
            return rehearse(path, output, data=data, user_model=user_model, settings=settings, progress=say)
    launched = Launched.of()
    if settings.resume and not launched.rank and not (state := state_path(output)).exists():
        complain(f"--resume: there is no {printable(str(state))}, so the run starts at its first epoch")
    try:
        with following() as watcher:
            return retrain(
                path,
                output,
                data=data,
                user_model=user_model,
                settings=settings,
                watcher=watcher,
                launched=launched,
            )
    except OtherHasTold:
        raise Ended(ExitCode.USER_ERROR) from None
    except BaseException as error:
        be_heard()
        if isinstance(error, KeyboardInterrupt):
            alone = launched.size == 1
            where = "before the output was written" if alone else f"in {launched.size} processes"
            complain(f"interrupted {where}; --resume goes on from the last epoch")
        raise


@contextlib.contextmanager
def following() -> Iterator[Watcher]:
    """Give an object that shows a retraining as it goes on; the user's prints go to standard error."""
    with stdout_elsewhere():
        if not is_terminal(sys.stderr):
            yield _Lines()
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        with Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        ) as bars:
            yield _Bars(bars)


class _Lines:
    """Progress for a log file: a line at most every half minute, the first after half a minute."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def say(self, doing: str) -> None:
        """Leave the steps before and after the training out, unless somebody waits for their end."""
        if doing == STOPPING:
            complain(doing)

    def epoch(self, phase: str, row: Epoch, epochs: int) -> None:
        if time.monotonic() - self._last >= SECONDS_A_LINE:
            self._last = time.monotonic()
            complain(f"{phase}: epoch {row.epoch} of {epochs}, {_figures(row)}")


class _Bars:
    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._doing = bars.add_task("", total=None, figures="")
        self._phase = ""

    def say(self, doing: str) -> None:
        self._bars.update(self._doing, description=printable(doing), total=None, figures="")

    def epoch(self, phase: str, row: Epoch, epochs: int) -> None:
        if phase != self._phase:
            self._phase = phase
            self._bars.update(self._doing, visible=False)
            self._doing = self._bars.add_task(printable(phase), total=epochs, figures="")
        self._bars.update(self._doing, completed=row.epoch, total=epochs, figures=_figures(row))


def _figures(row: Epoch) -> str:
    if row.stop is None:
        return f"task loss {row.task_loss:.4g}"
    layers = list(row.stop.layers.values())
    parts = []
    if layers:
        worst = min(layers, key=lambda layer: layer.perplexity / layer.num_codes)
        parts.append(f"perplexity {worst.perplexity:.0f} of {worst.num_codes}")
    known = row.stop.accuracy is not None
    parts.append(f"accuracy {row.stop.accuracy:.3f}" if known else f"task loss {row.stop.loss:.4g}")
    return ", ".join(parts)


def draw(report: Report, output: Path) -> None:
    """Draw the picture of a retraining beside its output, where matplotlib is there; without it, say so."""
    if report.retraining is None or not report.retraining.epochs:
        return
    from vqdoctor.plots.retraining import draw as picture

    target = output.with_suffix(".png")
    try:
        target.write_bytes(picture(report.retraining))
    except MissingPackageError as error:
        complain(f"no picture: {error}")
    except OSError as error:
        complain(f"no picture: {target}: {error.strerror or error}")
    else:
        complain(f"picture: {target}")
