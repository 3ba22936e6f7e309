"""`vqdoctor checks`: all checks at a glance."""

from __future__ import annotations

import json
import textwrap
from typing import Annotated

import typer

from vqdoctor.checks import all_checks
from vqdoctor.cli._output import terminal_options, write
from vqdoctor.core.check import Check
from vqdoctor.core.config import suggestion
from vqdoctor.core.errors import UserError
from vqdoctor.render import printable


def checks(
    format: Annotated[
        str, typer.Option("--format", "-f", metavar="text|json", help="Format of standard output.")
    ] = "text",
) -> None:
    """List all checks, in the priority order of causes."""
    if format not in FORMATS:
        raise UserError(f"there is no format {format!r}", suggestion(format, FORMATS))
    write(FORMATS[format]())


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
    return "\n".join([*lines[1:], "", "`vqdoctor explain CODE` tells more of one.", ""])


def _json() -> str:
    return json.dumps([_as_dict(check) for check in all_checks()], indent=2) + "\n"


def _as_dict(check: Check) -> dict[str, object]:
    return {
        "code": check.code,
        "name": check.name,
        "title": check.title,
        "stage": int(check.stage),
        "scope": check.scope,
        "limits": {name: default for name, default, _ in check.limit_docs()},
        "remedies": list(check.remedy_names),
        "explained_by": list(check.explained_by),
    }


FORMATS = {"text": _text, "json": _json}
