"""`vqdoctor inspect`: a checkpoint, and perhaps a data batch, in; a ranked report out."""

from __future__ import annotations

import ast
import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from vqdoctor.cli import _codes
from vqdoctor.cli._output import check_target, progress, save, terminal_options, write
from vqdoctor.core.config import configure, parse_limits, suggestion
from vqdoctor.core.errors import UserError
from vqdoctor.render import Renderer, RenderOptions, all_renderers


def inspect(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT", help="The checkpoint: .pt .pth .ckpt .safetensors.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="BATCH",
            help="A batch (.npz .npy .pt .safetensors) with x (and y), or with z_e and/or indices.",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:NAME|PKG:NAME", help="Your Task: model, data and losses in your own code."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:NAME|PKG:NAME|hf",
            help="What builds your model, for --data with x; hf: transformers or diffusers, by config.json.",
        ),
    ] = None,
    model_arg: Annotated[
        list[str] | None,
        typer.Option(metavar="K=V", help="An argument for it, such as dim=64; may be given several times."),
    ] = None,
    vq_loss: Annotated[
        str | None, typer.Option(metavar="KEY", help="The model's output that is the VQ loss.")
    ] = None,
    task_loss: Annotated[
        str | None,
        typer.Option(
            metavar="ce|mse|KEY",
            help="The task loss: cross-entropy against y, squared error, or an output of the model.",
        ),
    ] = None,
    trained_vq_weight: Annotated[
        float | None,
        typer.Option(metavar="W", help="The weight that the training gave the VQ loss, if nothing tells it."),
    ] = None,
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
    layer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Examine only the VQ layer of this name.")
    ] = None,
    codebook_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Take the tensor under this key as the codebook.")
    ] = None,
    layout: Annotated[
        str | None, typer.Option(metavar="kd|dk", help="How that codebook lies: [K, D] or [D, K].")
    ] = None,
    verify: Annotated[
        bool | None, typer.Option("--verify/--no-verify", help="Read and check every byte of the checkpoint.")
    ] = None,
    select: Annotated[
        list[str] | None,
        typer.Option(metavar="CODES", help="Run only these checks: VQ101,VQ5 (beginnings allowed)."),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="CODES", help="Leave out these checks, likewise.")
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="CODE.NAME=VALUE", help="Change a limit; `vqdoctor explain CODE` lists them."),
    ] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(metavar="error|warning|never", help="Exit 1 from which severity on.  [default: error]"),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            help="Format of standard output: rich, json or markdown.  [default: rich]",
            autocompletion=lambda: list(all_renderers()),
        ),
    ] = None,
    save_as: Annotated[
        list[str] | None,
        typer.Option(
            "--save", metavar="FORMAT=FILE", help="Also save the report; may be given several times."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Seed of all that is drawn.  [default: 0]")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="auto|cpu|cuda|mps", help="Where a model is run.  [default: auto]")
    ] = None,
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
    renderer = _renderer(config.format)
    targets = _targets(save_as or [], (checkpoint, *([data] if data else [])))

    from vqdoctor.engine import Brought, Settings, examine, exit_code

    brought = Brought(
        task=task,
        model=model,
        model_args=dict(map(_model_arg, model_arg or ())),
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
        report = examine(checkpoint, data=data, brought=brought, settings=settings, progress=say)
    write(renderer.render(report, terminal_options()))
    for target, saver in targets.items():
        save(saver.render(report, RenderOptions()), target)
    raise typer.Exit(exit_code(report, config.bar))


def _renderer(name: str) -> Renderer:
    known = all_renderers()
    if name not in known:
        raise UserError(f"there is no format {name!r}", suggestion(name, known))
    return known[name]


def _model_arg(text: str) -> tuple[str, object]:
    """Return name and value; a value that is no Python literal is a string."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise UserError(f"--model-arg {text}: not of the form K=V", "such as dim=64 or shape=(1, 28, 28)")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return name, value


def _targets(saves: list[str], inputs: tuple[Path, ...]) -> dict[Path, Renderer]:
    """Return where to save in which format, once all of it is known to be possible."""
    targets: dict[Path, Renderer] = {}
    for text in saves:
        name, equals, file = text.partition("=")
        if not (equals and file):
            raise UserError(f"--save {text}: not of the form FORMAT=FILE", "such as json=report.json")
        renderer, target = _renderer(name), Path(file)
        check_target(target, inputs)
        if any(target.resolve() == other.resolve() for other in targets):
            raise UserError(f"--save {text}: two reports for one file", "save under two names")
        targets[target] = renderer
    return targets
