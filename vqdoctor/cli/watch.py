"""`vqdoctor watch`: a running training in the terminal, or in a log."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vqdoctor.cli._live import drawing, pressed
from vqdoctor.cli._options import Ended, with_options
from vqdoctor.cli._output import complain, is_terminal, terminal_options, write
from vqdoctor.core.exit_codes import ExitCode
from vqdoctor.core.option import OUTPUT
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.render import board, news_line, printable

PAUSE = 1.0
"""Seconds between two looks."""
LATEST = 5
"""Checkpoints under the board."""


@with_options
def watch(
    path: Annotated[
        Path,
        typer.Argument(metavar="TRACE|FOLDER", help="The trace of a Monitor, or the folder of a run."),
    ],
    once: Annotated[
        bool, typer.Option("--once", help="Show what there is, and end.", rich_help_panel=OUTPUT)
    ] = False,
    *,
    settings: Settings,
    user_model: UserModel,
) -> None:
    """Follow a training: its newest figures and findings, and a folder's checkpoints as they come.

    In a terminal the figures are drawn in place, and q ends; elsewhere each interval is a line. It ends by
    itself when the monitor of the training has stopped; a training that was killed does not say so.

    Exit codes: 0 at the end, 2 your input.
    """
    from vqdoctor.engine.watch import Followed

    run = Followed(path=path, user_model=user_model, settings=settings)
    live, ascii = is_terminal(sys.stdout) and not once, terminal_options().ascii
    latest: list[str] = []
    with drawing(live) as draw, pressed("q") as quits:
        while True:
            fresh = [printable(news_line(news), ascii=ascii) for news in run.news()]
            if live:
                latest = [*latest, *(line for line in fresh if line.startswith("checkpoint"))][-LATEST:]
                lines = board(run.trace).splitlines() if run.trace else []
                draw("\n".join(printable(line, ascii=ascii) for line in [*lines, *latest, "q ends"]))
            else:
                write("".join(f"{line}\n" for line in fresh))
            if once and not fresh and run.trace is None:
                complain(f"{path}: neither a trace nor a checkpoint yet")
            if once or run.ended or quits(PAUSE):
                raise Ended(ExitCode.OK)
