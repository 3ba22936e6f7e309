"""Small edits of a syntax tree that keeps every comment and blank."""

from __future__ import annotations

import difflib
import re
from ast import literal_eval
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider

from vqdoctor.core.errors import UserError

N = TypeVar("N", bound=cst.CSTNode)
NO_NEWLINE = "\\ No newline at end of file\n"
"""How a diff says so."""
_FUNCTIONAL = (
    (r"^import torch\.nn\.functional as (\w+)", r"\1"),
    (r"^from torch\.nn import functional as (\w+)", r"\1"),
    (r"^from torch\.nn import .*\bfunctional\b(?! as)", "functional"),
    (r"^from torch import .*\bnn\b(?! as)", "nn.functional"),
    (r"^import torch\.nn as (\w+)", r"\1.functional"),
    (r"^import torch$", "torch.nn.functional"),
)
"""How a file may import `torch.nn.functional`, and what it is called there."""


def parse(path: Path) -> cst.Module:
    """Read a Python file as a syntax tree.

    Raises:
        UserError: if it cannot be read, or is not Python.
    """
    try:
        return cst.parse_module(path.read_bytes())
    except OSError as error:
        hint = "name the file of your model"
        raise UserError(f"--source {path}: {error.strerror or error}", hint) from None
    except (cst.ParserSyntaxError, UnicodeDecodeError, SyntaxError) as error:
        line = getattr(error, "raw_line", None)
        where = f"{path}:{line}" if line else f"{path}"
        hint = "Python must be able to run it first"
        raise UserError(f"--source {where}: not a Python file", hint) from None


def diff(before: cst.Module, after: cst.Module, name: str) -> str:
    """Return the unified diff between two trees of one file, as `git apply` takes it; "" where they agree.

    A line ends with a line feed, as it does for git.
    """
    mark = "\ufeff" if before.encoding == "utf-8-sig" else ""  # which the tree does not hold
    old, new = (_lines(mark + module.code) for module in (before, after))
    lines = difflib.unified_diff(old, new, f"a/{name}", f"b/{name}")
    return "".join(line if line.endswith("\n") else f"{line}\n{NO_NEWLINE}" for line in lines)


def code(node: cst.CSTNode) -> str:
    """Return a node as text, without the blanks around it.

    >>> code(cst.parse_expression("a  +  b"))
    'a  +  b'
    """
    return cst.Module([]).code_for_node(node).strip()


def below(node: cst.CSTNode | None) -> Iterator[cst.CSTNode]:
    """Yield a node and all below it, from first to last; nothing for None."""
    if node is not None:
        yield node
        for child in node.children:
            yield from below(child)


def every(node: cst.CSTNode | None, kind: type[N]) -> Iterator[N]:
    """Yield a node and all below it, as far as they are of a kind."""
    return (found for found in below(node) if isinstance(found, kind))


def edited(
    module: cst.Module,
    expressions: Mapping[N, str] | None = None,
    *,
    before: Mapping[cst.SimpleStatementLine, Sequence[str]] | None = None,
    after: Mapping[cst.SimpleStatementLine, Sequence[str]] | None = None,
) -> cst.Module:
    """Return the file with all of these edits. A node is one of the file itself, as it was parsed.

    Args:
        module: the file.
        expressions: node to the expression that takes its place.
        before: statement to new statements before it, as deep as it stands; its comments stay before all.
        after: statement to new statements behind it, likewise.
    """
    changed = module.visit(_Edit(module, expressions or {}, before or {}, after or {}))
    assert isinstance(changed, cst.Module)
    return changed


def one_statement_a_line(module: cst.Module, layer: cst.ClassDef) -> tuple[cst.Module, cst.ClassDef]:
    """Return the file, and a class in it, with each line of several statements in that class split."""
    split = [line for line in every(layer, cst.SimpleStatementLine) if len(line.body) > 1]
    if not split:
        return module, layer
    number = list(every(module, cst.ClassDef)).index(layer)
    changed = module.visit(_Split(split))
    assert isinstance(changed, cst.Module)
    return changed, list(every(changed, cst.ClassDef))[number]


def joined_again(before: cst.Module, after: cst.Module) -> cst.Module:
    """Return an edited file in which the lines that were split for the edit, and kept, are as they were.

    Statements that the author has on lines of their own somewhere else stay there.

    Args:
        before: the file as its author wrote it.
        after: the edited file.
    """
    text, places = f"\n{after.code}", MetadataWrapper(before).resolve(PositionProvider)
    lines = _lines(before.code)
    for statement in {at: None for at in places if isinstance(at, cst.SimpleStatementLine)}:
        at = places[statement]
        if len(statement.body) < 2 or at.start.line != at.end.line:
            continue
        line = lines[at.start.line - 1]
        blank = line[: len(line) - len(line.lstrip())]
        pieces = [
            f"{blank}{code(small.with_changes(semicolon=cst.MaybeSentinel.DEFAULT))}"
            for small in statement.body
        ]
        comment = cst.Module([]).code_for_node(statement.trailing_whitespace)
        split = "\n".join(["", *pieces]) + comment
        if split not in f"\n{before.code}":
            text = text.replace(split, f"\n{line}")
    return cst.parse_module(text[1:], after.config_for_parsing)


def _lines(text: str) -> list[str]:
    """Return the lines of a file, which end with a line feed, and not with a form feed as Python's do."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


class _Split(cst.CSTTransformer):
    def __init__(self, lines: Sequence[cst.SimpleStatementLine]) -> None:
        super().__init__()
        self._lines = lines

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.SimpleStatementLine | cst.FlattenSentinel[cst.SimpleStatementLine]:
        if not any(original_node is line for line in self._lines):
            return updated_node
        bare = [small.with_changes(semicolon=cst.MaybeSentinel.DEFAULT) for small in updated_node.body]
        lines = [cst.SimpleStatementLine([small]) for small in bare]
        lines[0] = lines[0].with_changes(leading_lines=updated_node.leading_lines)
        lines[-1] = lines[-1].with_changes(trailing_whitespace=updated_node.trailing_whitespace)
        return cst.FlattenSentinel(lines)


class _Edit(cst.CSTTransformer):
    def __init__(
        self,
        module: cst.Module,
        expressions: Mapping[N, str],
        before: Mapping[cst.SimpleStatementLine, Sequence[str]],
        after: Mapping[cst.SimpleStatementLine, Sequence[str]],
    ) -> None:
        super().__init__()
        config = module.config_for_parsing
        self._new = {node: cst.parse_expression(text, config) for node, text in expressions.items()}
        self._before, self._after = (
            {node: [cst.parse_statement(line, config) for line in lines] for node, lines in given.items()}
            for given in (before, after)
        )

    def on_leave(self, original_node: cst.CSTNode, updated_node: cst.CSTNode) -> object:  # type: ignore[override]
        if original_node in self._new:
            return self._new[original_node]  # type: ignore[index]
        lines: list[cst.CSTNode] = [updated_node]
        if first := self._before.get(original_node):  # type: ignore[call-overload]
            comments = updated_node.leading_lines  # type: ignore[attr-defined]
            lines = [first[0].with_changes(leading_lines=comments), *first[1:]]
            lines.append(updated_node.with_changes(leading_lines=()))
        lines += self._after.get(original_node, [])  # type: ignore[call-overload]
        return updated_node if len(lines) == 1 else cst.FlattenSentinel(lines)


def functional(module: cst.Module) -> str:
    """Return the name of `torch.nn.functional` in a file; "" where it does not import it.

    >>> functional(cst.parse_module("from torch import nn"))
    'nn.functional'
    """
    for pattern, name in _FUNCTIONAL:
        if found := re.search(pattern, module.code, re.MULTILINE):
            return found.expand(name)
    return ""


def number(node: cst.BaseExpression) -> float | None:
    """Return the value of a literal number; None for any other expression."""
    return float(literal_eval(node.value)) if isinstance(node, cst.Integer | cst.Float) else None
