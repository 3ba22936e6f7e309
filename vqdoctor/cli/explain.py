"""`vqdoctor explain`: one check's why, how to read it, its limits and its remedies."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Annotated

import typer

from vqdoctor.checks import all_checks
from vqdoctor.cli import _codes
from vqdoctor.cli._output import terminal_options, write
from vqdoctor.cli._prose import reflow, section
from vqdoctor.core.check import Check
from vqdoctor.remedies import with_advice
from vqdoctor.render import printable


def explain(
    code: Annotated[
        str, typer.Argument(metavar="CODE", help="A check's code or name.", autocompletion=_codes.complete)
    ],
) -> None:
    """Explain a check: why, how to read it, limits, remedies."""
    options = terminal_options()
    lines = "\n".join(_page(_codes.find_check(code), min(options.width, 100))).splitlines()
    write("\n".join(printable(line, ascii=options.ascii) for line in lines) + "\n")


def _page(check: Check, width: int) -> Iterator[str]:
    yield f"{check.code} {check.name} (stage {int(check.stage)}, {check.stage.label})"
    yield from textwrap.wrap(check.title, width)
    for title in ("Why it matters", "How to read it"):
        yield from ("", title.upper(), *reflow(section(check.doc, title), width - 2, "  "))
    yield from ("", "LIMITS", *_limits(check, width))
    yield from ("", "REMEDIES", *reflow(section(check.doc, "Remedy"), width - 2, "  "))
    yield from _remedies(check, width)
    names = {other.code: other.name for other in all_checks()}
    causes = ", ".join(f"{code} {names.get(code, '')}".strip() for code in check.explained_by)
    yield from ("", *reflow(f"Can be a symptom of: {causes}.", width - 2, "  ")) if causes else ()
    yield from ("", "REFERENCES", *reflow(section(check.doc, "References"), width - 2, "  "))


def _limits(check: Check, width: int) -> Iterator[str]:
    change = "none"
    for name, default, doc in check.limit_docs():
        yield f"  {name} = {default:g}"
        yield from textwrap.wrap(doc, width, initial_indent="      ", subsequent_indent="      ")
        change = f"Change one: --limit {check.code}.{name}={default:g}"
    yield f"  {change}"


def _remedies(check: Check, width: int) -> Iterator[str]:
    known = {remedy.name: remedy for remedy in with_advice([check])}
    for remedy in (known[name] for name in check.remedy_names if name in known):
        yield from ("", f"  {remedy.name}")
        yield from textwrap.wrap(remedy.how, width, initial_indent="    ", subsequent_indent="    ")
        yield from (f"      {line}" for line in remedy.code.splitlines())
