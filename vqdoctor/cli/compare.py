"""`vqdoctor compare`: the checkpoints of a training side by side, and when a collapse began."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vqdoctor.cli._options import Ended, with_options
from vqdoctor.cli._output import progress, terminal_options, without_commands, write
from vqdoctor.cli._plots import check_folder, write_pictures
from vqdoctor.core.errors import UserError, suggestion
from vqdoctor.core.exit_codes import ExitCode
from vqdoctor.core.option import EXAMINED, OUTPUT
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.render import COMPARISON_FORMATS


@with_options
def compare(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="CKPT|REPORT.json|GLOB|FOLDER...",
            help="Checkpoints, saved reports, patterns, or run folders, each with all its checkpoints.",
        ),
    ],
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="CKPT",
            help="Which codes moved since this checkpoint?",
            rich_help_panel=EXAMINED,
        ),
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help="Format of standard output: rich, json, markdown, csv.",
            rich_help_panel=OUTPUT,
        ),
    ] = "rich",
    *,
    settings: Settings,
    user_model: UserModel,
) -> None:
    """Compare checkpoints: one line each, when a finding began, and which came first.

    Exit codes: 0 compared, 1 a frozen codebook moved, 2 your input.
    """
    if settings.plots:
        check_folder(settings.plots)
    if format not in COMPARISON_FORMATS:
        raise UserError(f"there is no format {format!r}", suggestion(format, COMPARISON_FORMATS))

    from vqdoctor.engine.compare import compare as compared

    with progress() as say:
        found = compared(paths, reference=reference, user_model=user_model, settings=settings, progress=say)
    text = COMPARISON_FORMATS[format](found, terminal_options())
    write(without_commands(text, "json" if format == "json" else "text"))
    if settings.plots:
        from vqdoctor.plots import comparison_pictures

        write_pictures(settings.plots, (("", picture) for picture in comparison_pictures(found, png=True)))
    raise Ended(ExitCode.FINDINGS if found.errors else ExitCode.OK)
