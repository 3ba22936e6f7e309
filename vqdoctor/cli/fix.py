"""`vqdoctor fix`: a checkpoint in; a repaired copy and a report of before and after out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vqdoctor.cli._options import Ended, with_options
from vqdoctor.cli._output import Output, complain, progress, refuse_input
from vqdoctor.cli._retrain import draw, retrained
from vqdoctor.cli._source import patched, require_fitting
from vqdoctor.core.errors import UserError
from vqdoctor.core.exit_codes import ExitCode
from vqdoctor.core.launcher import Launched
from vqdoctor.core.settings import Settings, UserModel


@with_options
def fix(
    checkpoint: Annotated[
        Path | None, typer.Argument(metavar="[CKPT]", help="It is only read.  [default: see above]")
    ] = None,
    *,
    settings: Settings,
    user_model: UserModel,
) -> None:
    """Repair a checkpoint into another file: without training, with --retrain the whole plan, or --source.

    Without CKPT: the one of --from, else tool.vqdoctor.checkpoint, else the only one in this folder.

    Exit codes: 0 nothing wrong is left (with --retrain: all goals met), 1 findings or missed goals, 2 your
    input, 3 inconclusive. A dry run ends with that of the input.
    """
    if checkpoint and settings.from_report:
        raise UserError("--from names a checkpoint, and so does the command", "leave one of them out")
    require_fitting(settings)
    rank = Launched.of().rank
    if rank and (settings.dry_run or not settings.retrain):
        raise Ended(ExitCode.OK)  # one process is enough

    from vqdoctor.engine import exit_code
    from vqdoctor.engine.repair import default_output, repair_file, require_remedies
    from vqdoctor.engine.source_file import encoding_of
    from vqdoctor.engine.which import which_checkpoint

    if not checkpoint:
        named = {"report": settings.from_report, "setting": settings.checkpoint}
        checkpoint, why = which_checkpoint(**named, folder=Path.cwd(), command="vqdoctor fix")
        complain(f"checkpoint: {checkpoint}, {why}")
    require_remedies((*settings.only, *settings.skip))
    target, data = settings.output or default_output(checkpoint), settings.batch
    output = Output.of(settings, checkpoint, target)
    refuse_input("-o", target, settings.inputs)
    if settings.source:
        report = patched(checkpoint, settings.source, settings, user_model)
    elif settings.retrain:
        report = retrained(checkpoint, target, settings, user_model)
    else:
        with progress() as say:
            report = repair_file(
                checkpoint, target, data=data, user_model=user_model, settings=settings, progress=say
            )
    if rank:
        raise Ended(ExitCode.OK)
    if report.source and settings.source and settings.diff:
        output.publish([report], report.source.diff, encoding_of(settings.source))
    else:
        output.publish([report])
    draw(report, target)
    raise Ended(exit_code(report, settings.bar))
