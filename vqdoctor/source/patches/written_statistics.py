"""Counts and sums, written where the layer writes codes: else the next EMA update brings the old codes back.

sums = code × count, for the rows that a revival or a data initialisation writes.
"""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from vqdoctor.source.edit import code, edited, every
from vqdoctor.source.patch import Patch, Proposal
from vqdoctor.source.place import Place, mentions


def _propose(place: Place, remedy: str) -> Iterator[Proposal]:
    codebook, counts, sums = (place.role(role) for role in ("codebook", "counts", "sums"))
    if not (codebook and counts and sums):
        return
    for function in place.methods:
        statements = list(every(function.body, cst.SimpleStatementLine))
        for number, statement in enumerate(statements):
            rows = _rows(statement, codebook)
            if rows is None or function.name.value == "__init__" or mentions(statement, sums):
                continue
            lines = _lines(place, rows)
            if [code(line) for line in statements[number + 1 : number + 1 + len(lines)]] != lines:
                changed = edited(place.module, after={statement: lines})
                yield Proposal(module=changed, what="counts and sums beside the codes that are written")


def _rows(statement: cst.SimpleStatementLine, codebook: str) -> str | None:
    """Return the subscript of the codes that a statement writes; "" is all, None is another statement."""
    first = statement.body[0]
    if isinstance(first, cst.Assign):
        target = first.targets[0].target
        if isinstance(target, cst.Subscript) and code(target.value).removesuffix(".data") == codebook:
            return ", ".join(code(element) for element in target.slice).rstrip(", ")
        return "" if code(target).removesuffix(".data") == codebook else None
    if isinstance(first, cst.Expr) and isinstance(first.value, cst.Call):
        func = first.value.func
        if isinstance(func, cst.Attribute) and func.attr.value == "copy_":
            return "" if code(func.value).removesuffix(".data") == codebook else None
    return None


def _lines(place: Place, rows: str) -> list[str]:
    codebook, counts, sums = (place.role(role) for role in ("codebook", "counts", "sums"))
    if place.transposed:
        part = rows.rpartition(",")[2].strip()
        at, of, wide = (f"[:, {part}]", f"[{part}]", "[None, :]") if part else ("", "", "[None, :]")
    else:
        at = of = f"[{rows}]" if rows else ""
        wide = "[:, None]"
    data = f"{codebook}.data"
    kept = f"{counts}.data{of}"
    live = [f"{kept} = {counts}.mean().clamp(min=1.0)"] if rows else [f"{counts}.data.clamp_(min=1.0)"]
    value = f"{data}{at} * {kept}{wide}"
    return [*live, f"{sums}.data{at} = {value}" if rows else f"{sums}.data.copy_({value})"]


PATCH = Patch(
    remedies=("revive-dead-codes", "data-init", "reset-ema", "relative-threshold"),
    propose=_propose,
    keeps_values=False,
)
