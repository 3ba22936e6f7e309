"""`vqdoctor fix`: a checkpoint in; the same one, mended, and a report of before and after out."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from vqdoctor.cli import _codes, _options, _retrain
from vqdoctor.cli._output import Output, complain, progress
from vqdoctor.core.config import Config, configure, nearest_pyproject, parse_limits
from vqdoctor.core.errors import UserError
from vqdoctor.core.exit_codes import ExitCode
from vqdoctor.core.retraining import Goals


def fix(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(metavar="[CKPT]", help="The checkpoint; it is only read.  [default: see below]"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT", help="The file to write.  [default: CKPT.fixed.pt]"),
    ] = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Train on, with the remedies of the plan, until it is cured.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show every change before and after, and write nothing.")
    ] = False,
    unsafe_fixes: Annotated[
        bool, typer.Option("--unsafe-fixes", help="Also apply what changes trained weights.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="REMEDY", help="Apply only this remedy; may be given several times."),
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option(metavar="REMEDY", help="Leave out this remedy, likewise.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write the output even if it exists; never the input.")
    ] = False,
    from_report: Annotated[
        Path | None,
        typer.Option("--from", metavar="REPORT.json", help="Mend the checkpoint that this report is of."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="BATCH",
            help="A batch, as for inspect: its vectors say where codes are needed, and what was gained.",
        ),
    ] = None,
    task: _options.Task = None,
    model: _options.Model = None,
    model_arg: _options.ModelArg = None,
    vq_loss: _options.VqLoss = None,
    task_loss: _options.TaskLoss = None,
    trained_vq_weight: _options.TrainedVqWeight = None,
    epochs: _retrain.Epochs = None,
    vq_weight: _retrain.VqWeight = None,
    warm_up: _retrain.WarmUp = 10,
    min_perplexity: _retrain.MinPerplexity = None,
    min_usage: _retrain.MinUsage = Goals.min_usage,
    min_accuracy: _retrain.MinAccuracy = None,
    max_ece: _retrain.MaxEce = Goals.max_ece,
    trial: _retrain.Trial = False,
    resume: _retrain.Resume = False,
    layer: _options.Layer = None,
    codebook_key: _options.CodebookKey = None,
    layout: _options.Layout = None,
    limit: _options.Limit = None,
    fail_on: _options.FailOn = None,
    format: _options.Format = None,
    save_as: _options.Save = None,
    verbose: _options.Verbose = False,
    seed: _options.Seed = None,
    device: _options.Device = None,
) -> None:
    """Mend a checkpoint, into another file: what a file can take, or with --retrain all of the plan.

    Without CKPT: the one of --from, else tool.vqdoctor.checkpoint, else the only one in this folder.

    Exit codes: 0 nothing wrong is left, 1 findings or missed goals, 2 your input, 3 inconclusive.
    """
    config = configure(
        Path.cwd(),
        {
            "limits": parse_limits(limit or ()),
            "seed": seed,
            "layer": layer,
            "codebook-key": codebook_key,
            "layout": layout,
            "device": device,
            "fail-on": fail_on,
            "format": format,
        },
    )
    _codes.require_known(config.limits, (*config.select, *config.ignore))
    if retrain and dry_run:
        raise UserError("--dry-run says nothing with --retrain", "leave one of them out")
    path = _checkpoint(checkpoint, from_report, config)

    from vqdoctor.engine import RepairSettings, Settings, UserModel, exit_code
    from vqdoctor.engine.repair import default_output, repair_file, require_remedies

    names = tuple(only or ()), tuple(skip or ())
    require_remedies((*names[0], *names[1]))
    target = output or default_output(path)
    inputs = [file for file in (path, data, from_report) if file]
    report_to = Output.of(config.format, save_as or [], (*inputs, target))
    _refuse_input(target, [file for file in (data, from_report) if file])
    user_model = UserModel(
        task=task,
        model=model,
        model_args=dict(map(_options.model_arg, model_arg or ())),
        vq_loss=vq_loss,
        task_loss=task_loss,
        trained_vq_weight=trained_vq_weight,
    )
    settings = Settings(
        select=config.select,
        ignore=config.ignore,
        limits=config.limits,
        seed=config.seed,
        layer=config.layer,
        codebook_key=config.codebook_key,
        orientation=config.layout,
        histogram=config.histogram,
        device=config.device,
    )
    if retrain:
        options = _retrain.settings(
            epochs=epochs,
            vq_weight=vq_weight,
            warm_up=warm_up,
            goals=Goals(
                min_perplexity=min_perplexity,
                min_usage=min_usage,
                min_accuracy=min_accuracy,
                max_ece=max_ece,
            ),
            only=names[0],
            skip=names[1],
            trial=trial,
            resume=resume,
            overwrite=overwrite,
        )
        from vqdoctor.engine import retrain as engine

        try:
            with _retrain.following() as watcher, contextlib.redirect_stdout(sys.stderr):
                report = engine.retrain(
                    path,
                    target,
                    data=data,
                    user_model=user_model,
                    settings=settings,
                    wanted=options,
                    watcher=watcher,
                )
        except KeyboardInterrupt:
            complain("interrupted before there was anything to write; --resume goes on from the last epoch")
            raise
        report_to.publish([report], config.bar, verbose=verbose)
        _retrain.draw(report.retraining, target)
        raise typer.Exit(_retrain.exit_code(report))
    wanted = RepairSettings(
        only=names[0], skip=names[1], unsafe=unsafe_fixes, dry_run=dry_run, overwrite=overwrite
    )
    # What the user's code prints must not get into a report that a script reads.
    with progress() as say, contextlib.redirect_stdout(sys.stderr):
        report = repair_file(
            path, target, data=data, user_model=user_model, settings=settings, wanted=wanted, progress=say
        )
    report_to.publish([report], config.bar, verbose=verbose)
    raise typer.Exit(ExitCode.OK if dry_run else exit_code(report, config.bar))


def _checkpoint(given: Path | None, report: Path | None, config: Config) -> Path:
    """Return the checkpoint that is meant; one that the user did not name is said aloud."""
    if given is not None:
        if report is not None:
            raise UserError("--from names a checkpoint, and so does the command", "leave one of them out")
        return given
    from vqdoctor.engine.which import which_checkpoint

    pyproject = nearest_pyproject(Path.cwd())
    named = pyproject.parent / config.checkpoint if pyproject and config.checkpoint else None
    path, why = which_checkpoint(report=report, setting=named, folder=Path.cwd(), command="vqdoctor fix")
    complain(f"checkpoint: {path}, {why}")
    return path


def _refuse_input(target: Path, inputs: list[Path]) -> None:
    for file in inputs:
        if target.exists() and file.exists() and target.samefile(file):
            raise UserError(f"-o {target}: this is an input", "name another file")
