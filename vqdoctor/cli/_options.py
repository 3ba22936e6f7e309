"""Options that several commands share, so that they are named, helped and completed alike."""

from __future__ import annotations

import ast
from typing import Annotated

import typer

from vqdoctor.core.errors import UserError
from vqdoctor.render import format_names

Task = Annotated[
    str | None,
    typer.Option(metavar="FILE.py:NAME|PKG:NAME", help="Your Task: model, data and losses in your own code."),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.py:NAME|PKG:NAME|hf",
        help="What builds your model, for --data with x; hf: transformers or diffusers, by config.json.",
    ),
]
ModelArg = Annotated[
    list[str] | None,
    typer.Option(metavar="K=V", help="An argument for it, such as dim=64; may be given several times."),
]
VqLoss = Annotated[str | None, typer.Option(metavar="KEY", help="The model's output that is the VQ loss.")]
TaskLoss = Annotated[
    str | None,
    typer.Option(
        metavar="ce|mse|KEY",
        help="The task loss: cross-entropy against y, squared error, or an output of the model.",
    ),
]
TrainedVqWeight = Annotated[
    float | None,
    typer.Option(metavar="W", help="The weight that the training gave the VQ loss, if nothing tells it."),
]
Layer = Annotated[str | None, typer.Option(metavar="NAME", help="Examine only the VQ layer of this name.")]
CodebookKey = Annotated[
    str | None, typer.Option(metavar="KEY", help="Take the tensor under this key as the codebook.")
]
Layout = Annotated[
    str | None, typer.Option(metavar="kd|dk", help="How that codebook lies: [K, D] or [D, K].")
]
Verify = Annotated[
    bool | None, typer.Option("--verify/--no-verify", help="Read and check every byte of the checkpoint.")
]
Select = Annotated[
    list[str] | None,
    typer.Option(metavar="CODES", help="Run only these checks: VQ101,VQ5 (beginnings allowed)."),
]
Ignore = Annotated[list[str] | None, typer.Option(metavar="CODES", help="Leave out these checks, likewise.")]
Limit = Annotated[
    list[str] | None,
    typer.Option(metavar="CODE.NAME=VALUE", help="Change a limit; `vqdoctor explain CODE` lists them."),
]
FailOn = Annotated[
    str | None,
    typer.Option(metavar="error|warning|never", help="Exit 1 from which severity on.  [default: error]"),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        metavar="FORMAT",
        help=f"Format of standard output: {', '.join(format_names())}.  [default: rich]",
        autocompletion=lambda: list(format_names()),
    ),
]
Save = Annotated[
    list[str] | None,
    typer.Option("--save", metavar="FORMAT=FILE", help="Also save the report; may be given several times."),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="List every check that could not judge, and why.")
]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Seed of all that is drawn.  [default: 0]")]
Device = Annotated[
    str | None, typer.Option(metavar="auto|cpu|cuda|mps", help="Where a model is run.  [default: auto]")
]


def model_arg(text: str) -> tuple[str, object]:
    """Return name and value of a --model-arg; a value that is no Python literal is a string.

    Raises:
        UserError: if the text is not of the form K=V.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise UserError(f"--model-arg {text}: not of the form K=V", "such as dim=64 or shape=(1, 28, 28)")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return name, value
