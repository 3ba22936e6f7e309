"""`vqdoctor init`: a task file for the user's own model, to be filled in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vqdoctor.cli._options import Ended
from vqdoctor.cli._output import progress, write
from vqdoctor.core.exit_codes import ExitCode
from vqdoctor.core.option import ARGUMENTS, MODEL, OUTPUT


def init(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Its class, or a function: FILE.py:NAME or PKG.MODULE:NAME."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="The file to write; it must not exist.",
            rich_help_panel=OUTPUT,
        ),
    ] = Path("vq_task.py"),
    model_arg: Annotated[
        list[str] | None,
        typer.Option(
            metavar="K=V",
            help="An argument of that function, such as dim=64; may be given several times.",
            rich_help_panel=MODEL,
        ),
    ] = None,
) -> None:
    """Write vq_task.py for your model, and say how to make its batch.

    The file works as it is where the model's outputs are usual ones; its comments say what to fill in.
    """
    arguments = ARGUMENTS.parse("--model-arg", model_arg or [])

    from vqdoctor.engine.task_file import write_task

    with progress():
        next_steps = write_task(model, output, arguments)
    write(next_steps)
    raise Ended(ExitCode.OK)
