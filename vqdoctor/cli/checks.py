"""`vqdoctor checks`: all checks at a glance."""

from __future__ import annotations

import json
import textwrap
from typing import Annotated

import typer

from vqdoctor.checks import all_checks
from vqdoctor.cli._output import terminal_options, write
from vqdoctor.core.errors import UserError, suggestion
from vqdoctor.core.option import OUTPUT
from vqdoctor.render import printable


def checks(
    format: Annotated[
        str,
        typer.Option(
            "--format", "-f", metavar="text|json", help="Format of standard output.", rich_help_panel=OUTPUT
        ),
    ] = "text",
) -> None:
    """List all checks, in the priority order of causes."""
    formats = {"text": _text, "json": _json}
    if format not in formats:
        raise UserError(f"there is no format {format!r}", suggestion(format, formats))
    write(formats[format]())


def _text() -> str:
    lines: list[str] = []
    stage, ascii = None, terminal_options().ascii
    for check in all_checks():
        if check.stage != stage:
            stage = check.stage
            lines += ["", f"{int(stage)} {stage.label}"]
        title = printable(check.title, ascii=ascii)
        lines.append(f"  {check.code} {check.name}")
        lines += textwrap.wrap(title, 80, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join([*lines[1:], "", "`vqdoctor explain CODE` describes one check.", ""])


def _json() -> str:
    rows = [
        {
            **{name: getattr(check, name) for name in ("code", "name", "title", "stage", "scope")},
            "limits": {name: default for name, default, _ in check.limit_docs()},
            "remedies": list(check.remedy_names),
            "explained_by": list(check.explained_by),
        }
        for check in all_checks()
    ]
    return json.dumps(rows, indent=2) + "\n"
