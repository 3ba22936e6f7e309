"""`vqdoctor inspect`: a checkpoint, and perhaps a data batch, in; a ranked report out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vqdoctor.cli._options import Ended, with_options
from vqdoctor.cli._output import Output, progress
from vqdoctor.cli._variants import inspect_results
from vqdoctor.core.exit_codes import ExitCode
from vqdoctor.core.launcher import Launched
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.core.variants import is_results


@with_options
def inspect(
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CKPT", help="The checkpoint: a file, a folder, or - for standard input."),
    ],
    *,
    settings: Settings,
    user_model: UserModel,
) -> None:
    """Examine a checkpoint: what is wrong, and what to change first. A .json is the results of an ablation.

    Exit codes: 0 nothing wrong, 1 findings, 2 your input, 3 incomplete or inconclusive.
    """
    launched = Launched.of()
    if launched.rank and is_results(checkpoint):
        raise Ended(ExitCode.OK)  # one process is enough
    if is_results(checkpoint):
        raise Ended(inspect_results(checkpoint, settings, user_model))
    data, output = settings.batch, Output.of(settings, checkpoint)

    from vqdoctor.engine import examine, exit_code

    with progress() as say:
        report = examine(
            checkpoint,
            data=data,
            user_model=user_model,
            settings=settings,
            progress=say,
            launched=launched,
        )
    if launched.rank:
        raise Ended(ExitCode.OK)
    output.publish([report])
    raise Ended(exit_code(report, settings.bar))
