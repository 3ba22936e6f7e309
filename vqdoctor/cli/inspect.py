"""`vqdoctor inspect`: a checkpoint, and perhaps a data batch, in; a ranked report out."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from vqdoctor.cli import _codes, _options
from vqdoctor.cli._output import Output, progress
from vqdoctor.core.config import configure, parse_limits
from vqdoctor.core.files import SUFFIXES


def inspect(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT", help=f"The checkpoint: {' '.join(SUFFIXES)}.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="BATCH",
            help="A batch (.npz .npy .pt .safetensors) with x (and y), or with z_e and/or indices.",
        ),
    ] = None,
    task: _options.Task = None,
    model: _options.Model = None,
    model_arg: _options.ModelArg = None,
    vq_loss: _options.VqLoss = None,
    task_loss: _options.TaskLoss = None,
    trained_vq_weight: _options.TrainedVqWeight = None,
    batches: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="How many batches of each split to run."),
    ] = None,
    probe_steps: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Training steps to take on a copy, for a look at the dynamics."
        ),
    ] = 0,
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
    histogram: Annotated[
        bool | None,
        typer.Option("--histogram/--no-histogram", help="Put the usage of every code into the report."),
    ] = None,
) -> None:
    """Examine a checkpoint: what is wrong, and what to change first.

    Exit codes: 0 nothing wrong, 1 findings, 2 your input, 3 incomplete or inconclusive.
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
            "histogram": histogram,
            "device": device,
            "fail-on": fail_on,
            "format": format,
        },
    )
    _codes.require_known(config.limits, (*config.select, *config.ignore))
    output = Output.of(config.format, save_as or [], (checkpoint, *([data] if data else [])))

    from vqdoctor.engine import Settings, UserModel, examine, exit_code

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
        verify=config.verify,
        seed=config.seed,
        layer=config.layer,
        codebook_key=config.codebook_key,
        orientation=config.layout,
        histogram=config.histogram,
        device=config.device,
        batches=batches,
        probe_steps=probe_steps,
    )
    # What the user's code prints must not get into a report that a script reads.
    with progress() as say, contextlib.redirect_stdout(sys.stderr):
        report = examine(checkpoint, data=data, user_model=user_model, settings=settings, progress=say)
    output.publish([report], config.bar, verbose=verbose)
    raise typer.Exit(exit_code(report, config.bar))
