"""`vqdoctor gate`: assertions on checkpoints or saved reports in, an exit code for CI out."""

from __future__ import annotations

from typing import Annotated

import typer

from vqdoctor.cli._options import Ended, with_options
from vqdoctor.cli._output import Output, complain_of, progress
from vqdoctor.core.errors import UserError
from vqdoctor.core.settings import Settings, UserModel


@with_options
def gate(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="CKPT|REPORT.json|GLOB|FOLDER...",
            help="Checkpoints, saved reports, patterns, or run folders, each judged on its newest.",
        ),
    ],
    *,
    settings: Settings,
    user_model: UserModel,
) -> None:
    """Judge checkpoints for CI: thresholds against intervals, never against points.

    Without a threshold: no collapsed codebook, and no finding at or above --fail-on.

    Exit codes: 0 all pass, 1 one fails, 2 your input, 3 inconclusive.
    """
    if "gate.max-drop" in settings.flags and settings.baseline is None:
        raise UserError("--max-drop needs --baseline", "--baseline main.json")

    from vqdoctor.engine.gate import Policy, Source, expand, is_report, judge_all, load_reports

    files = expand(paths)
    reports = [file for file in files if is_report(file)]
    given = [name for name in ("layer", "codebook-key", "layout", "trace") if name in settings.flags]
    if reports and given:  # the layers of a saved report are chosen already
        what = f"{reports[0]} is a saved report, and --{given[0]} is for checkpoints"
        raise UserError(what, "--require METRIC>=N@LAYER names one layer")
    if reports == list(files):
        settings, user_model = settings.without_model(user_model)
    output = Output.of(settings, *files)
    others = [load_reports(file) if file else () for file in (settings.baseline, settings.hide_known)]
    policy = Policy(
        rules=settings.gate, bar=settings.bar, limits=settings.limits, baseline=others[0], known=others[1]
    )
    with progress() as say:
        source = Source(paths=files, data=settings.data, user_model=user_model, settings=settings)
        judged = judge_all(source, policy, say)
    output.publish(judged.reports)
    for error in judged.errors:
        complain_of(error)
    raise Ended(judged.exit_code)
