"""`vqdoctor gate`: assertions on checkpoints or saved reports in, an exit code for CI out."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from vqdoctor.cli import _codes, _options
from vqdoctor.cli._output import Output, complain, progress
from vqdoctor.core.config import configure, parse_limits
from vqdoctor.core.errors import UserError
from vqdoctor.render import printable


def gate(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="CKPT|REPORT.json|GLOB|FOLDER...",
            help="Checkpoints, saved reports, patterns, or run folders, each judged on its newest.",
        ),
    ],
    data: Annotated[
        list[Path] | None,
        typer.Option(metavar="BATCH", help="A batch, as for inspect; with several, each is judged."),
    ] = None,
    min_perplexity: Annotated[
        str | None,
        typer.Option(metavar="N|0.2K", help="Least perplexity of every VQ layer; K is its number of codes."),
    ] = None,
    min_usage: Annotated[
        str | None, typer.Option(metavar="F", help="Least share of the codes that are chosen at all.")
    ] = None,
    max_dead: Annotated[
        str | None, typer.Option(metavar="F", help="Largest share of dead codes, under 0.1/K of the usage.")
    ] = None,
    max_ece: Annotated[
        str | None, typer.Option(metavar="F", help="Largest expected calibration error.")
    ] = None,
    min_accuracy: Annotated[str | None, typer.Option(metavar="F", help="Least accuracy.")] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EXPR",
            help='Any of these on one layer: "perplexity>=200@rvq.layers.0"; may be given several times.',
        ),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="REPORT.json", help="Compare perplexity, usage and accuracy with this report's."
        ),
    ] = None,
    max_drop: Annotated[
        str | None,
        typer.Option(metavar="F", help="Largest share that may be lost against it.  [default: 10%]"),
    ] = None,
    hide_known: Annotated[
        Path | None,
        typer.Option(metavar="REPORT.json", help="Silence findings and failures that this report has too."),
    ] = None,
    aggregate: Annotated[
        str | None,
        typer.Option(metavar="median|worst", help="Judge all files (seeds) or batches together, by this."),
    ] = None,
    inconclusive: Annotated[
        str | None,
        typer.Option(
            metavar="pass|fail",
            help="What an interval that straddles its threshold counts as.  [default: exit 3]",
        ),
    ] = None,
    task: _options.Task = None,
    model: _options.Model = None,
    model_arg: _options.ModelArg = None,
    layer: _options.Layer = None,
    codebook_key: _options.CodebookKey = None,
    layout: _options.Layout = None,
    verify: _options.Verify = None,
    select: _options.Select = None,
    ignore: _options.Ignore = None,
    limit: _options.Limit = None,
    fail_on: _options.FailOn = None,
    format: _options.Format = None,
    save_as: _options.Save = None,
    verbose: _options.Verbose = False,
    seed: _options.Seed = None,
    device: _options.Device = None,
) -> None:
    """Judge checkpoints for CI: thresholds against intervals, never against points.

    Without a threshold: no collapsed codebook, and no finding at or above --fail-on.

    Exit codes: 0 all pass, 1 one fails, 2 your input, 3 inconclusive.
    """
    config = configure(
        Path.cwd(),
        {
            "select": select or None,
            "ignore": ignore or None,
            "limits": parse_limits(limit or ()),
            "verify": verify,
            "seed": seed,
            "layer": layer,
            "codebook-key": codebook_key,
            "layout": layout,
            "device": device,
            "fail-on": fail_on,
            "format": format,
        },
        {
            "min-perplexity": min_perplexity,
            "min-usage": min_usage,
            "max-dead": max_dead,
            "max-ece": max_ece,
            "min-accuracy": min_accuracy,
            "require": require or None,
            "max-drop": max_drop,
            "aggregate": aggregate,
            "inconclusive": inconclusive,
        },
    )
    _codes.require_known(config.limits, (*config.select, *config.ignore))
    if max_drop is not None and baseline is None:
        raise UserError("--max-drop says nothing without --baseline", "--baseline main.json")

    from vqdoctor.engine.gate import Policy, Source, expand, judge_all, load_reports
    from vqdoctor.engine.settings import Settings, UserModel

    files = expand(paths)
    _refuse_on_reports(files, {"--layer": layer, "--codebook-key": codebook_key, "--layout": layout})
    named = [path for path in (baseline, hide_known) if path]
    output = Output.of(config.format, save_as or [], (*files, *(data or ()), *named))
    source = Source(
        paths=files,
        data=tuple(data or ()),
        user_model=UserModel(
            task=task, model=model, model_args=dict(map(_options.model_arg, model_arg or ()))
        ),
        settings=Settings(
            select=config.select,
            ignore=config.ignore,
            limits=config.limits,
            verify=config.verify,
            seed=config.seed,
            layer=config.layer,
            codebook_key=config.codebook_key,
            orientation=config.layout,
            device=config.device,
        ),
    )
    policy = Policy(
        rules=config.gate,
        bar=config.bar,
        limits=config.limits,
        baseline=load_reports(baseline) if baseline else (),
        known=load_reports(hide_known) if hide_known else (),
    )
    # What the user's code prints must not get into a report that a script reads.
    with progress() as say, contextlib.redirect_stdout(sys.stderr):
        judged = judge_all(source, policy, say)
    output.publish(judged.reports, config.bar, verbose=verbose)
    for error in judged.errors:
        complain(f"error: {error}")
    raise typer.Exit(judged.exit_code)


def _refuse_on_reports(files: Sequence[Path], flags: Mapping[str, str | None]) -> None:
    """Make sure that no flag is given that a saved report would ignore, for its layers are chosen already.

    Raises:
        UserError: if one is.
    """
    from vqdoctor.engine.gate import is_report

    report = next((file for file in files if is_report(file)), None)
    given = next((flag for flag, value in flags.items() if value), None)
    if report and given:
        hint = "--require METRIC>=N@LAYER names one layer"
        raise UserError(f"{printable(str(report))} is a saved report, and {given} is for checkpoints", hint)
