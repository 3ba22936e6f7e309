"""The part of `vqdoctor fix` that retrains: its options, its progress on standard error, and its picture."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vqdoctor.cli._output import complain, is_terminal
from vqdoctor.core.errors import MissingPackageError, UserError
from vqdoctor.core.exit_codes import ExitCode
from vqdoctor.core.report import Report
from vqdoctor.core.retraining import Epoch, Goals, Retraining
from vqdoctor.render import printable

if TYPE_CHECKING:  # needs torch
    from vqdoctor.engine.retrain import RetrainSettings, Watcher

Epochs = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="With --retrain: at most so many epochs.  [default: 50, or what a remedy needs]",
    ),
]
VqWeight = Annotated[
    str | None,
    typer.Option(
        metavar="W|auto",
        help="With --retrain: the weight of the VQ loss, or auto: balanced by its gradients.  [default: 0.1]",
    ),
]
WarmUp = Annotated[
    int, typer.Option("--warmup", metavar="N", min=0, help="With --retrain: epochs of the weight's warm-up.")
]
MinPerplexity = Annotated[
    float | None,
    typer.Option(metavar="N", help="Goal: perplexity of every VQ layer.  [default: a fifth of its codes]"),
]
MinUsage = Annotated[
    float, typer.Option(metavar="F", help="Goal: active codes, as a share of those to expect.")
]
MinAccuracy = Annotated[
    float | None,
    typer.Option(
        metavar="F", help="Goal: accuracy.  [default: that of the model trained without VQ, less 0.015]"
    ),
]
MaxEce = Annotated[float, typer.Option(metavar="F", help="Goal: expected calibration error.")]
Trial = Annotated[
    bool, typer.Option("--trial", help="With --retrain: first try the remedies against each other.")
]
Resume = Annotated[bool, typer.Option("--resume", help="With --retrain: go on with an unfinished run.")]


def settings(
    *,
    epochs: int | None,
    vq_weight: str | None,
    warm_up: int,
    goals: Goals,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    trial: bool,
    resume: bool,
    overwrite: bool,
) -> RetrainSettings:
    """Return the settings of a retraining.

    Raises:
        UserError: if a number cannot be.
        MissingPackageError: if torch is not installed.
    """
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        raise MissingPackageError("torch", "retraining", "torch")
    from vqdoctor.engine.retrain import RetrainSettings

    return RetrainSettings(
        epochs=epochs,
        vq_weight=_weight(vq_weight),
        balanced=vq_weight == "auto",
        warm_up_epochs=warm_up,
        goals=goals,
        only=only,
        skip=skip,
        trial=trial,
        resume=resume,
        overwrite=overwrite,
    )


def _weight(text: str | None) -> float | None:
    if text in (None, "auto"):
        return None
    try:
        weight = float(text or "")
    except ValueError:
        weight = -1.0
    if not 0.0 <= weight < float("inf"):
        raise UserError(f"--vq-weight {text}: neither a weight nor auto", "such as 0.1")
    return weight


def exit_code(report: Report) -> ExitCode:
    """Return 0 where all goals are met, 3 where the run was interrupted before that, else 1."""
    done = report.retraining
    assert done is not None
    if done.cured:
        return ExitCode.OK
    return ExitCode.INCOMPLETE if done.interrupted else ExitCode.FINDINGS


@contextlib.contextmanager
def following() -> Iterator[Watcher | None]:
    """Give what shows a retraining as it goes on: on standard error, and only on a terminal."""
    if not is_terminal(sys.stderr):
        yield None
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


def draw(retraining: Retraining | None, output: Path) -> None:
    """Draw the picture beside the output, where matplotlib is there; without it, say so."""
    if retraining is None:
        return
    from vqdoctor.plots.retraining import draw as picture

    target = output.with_suffix(".png")
    try:
        picture(retraining, target)
    except MissingPackageError as error:
        complain(f"no picture: {error}")
    except OSError as error:
        complain(f"no picture: {target}: {error.strerror or error}")
    else:
        complain(f"picture: {target}")
