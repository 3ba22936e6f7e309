"""How large the house is. `make size` prints it; tests/house/test_size.py holds what may not grow.

The rules of counting:

- A line of code is a line that holds a token of Python's own tokenizer, other than a comment. A string
  that stands alone as a statement is a docstring (of a module, class, function or attribute), and no code.
  A blank line inside of another string is code.
- A module is as long as its file, with everything in it.
- A function is as long as it is from `def` (its decorators apart) to its last line, without its docstring.
- A crumb is a private function or method whose name stands once in its module beyond its definition, and
  whose body without its docstring takes four lines or less.
- An `Any` is the name used in an annotation or an expression; importing it does not count.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

LONGEST_MODULE = 400
LONGEST_FUNCTION = 60
CRUMB = 4
REASON = "One story: "
"""Begins the one line that says why a module or a function is longer than that."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


@dataclass(frozen=True)
class Module:
    """One file.

    Attributes:
        name: its path below the room, with "/".
        text: its source.
    """

    name: str
    text: str

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of its syntax tree."""
        return list(ast.walk(ast.parse(self.text)))

    @property
    def length(self) -> int:
        """Lines of the file."""
        return len(self.text.splitlines())

    @property
    def code(self) -> int:
        """Lines of code."""
        lines: set[int] = set()
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type not in _NO_CODE:
                lines.update(range(token.start[0], token.end[0] + 1))
        for node in self.nodes:
            if _is_docstring(node):
                lines.difference_update(range(node.lineno, node.end_lineno + 1))  # type: ignore[attr-defined]
        return len(lines)

    @property
    def functions(self) -> Iterator[Function]:
        """Functions and methods, with those inside of others."""
        return (node for node in self.nodes if isinstance(node, Function))

    @property
    def crumbs(self) -> Iterator[str]:
        """Names of private functions of a few lines that are called once."""
        uses = Counter(_name(node) for node in self.nodes)
        for function in self.functions:
            private = function.name.startswith("_") and not function.name.endswith("__")
            body = function.body[_is_docstring(function.body[0]) and len(function.body) > 1 :]
            if private and uses[function.name] == 1 and _lines(body[0], body[-1]) <= CRUMB:
                yield function.name

    @property
    def anys(self) -> int:
        """How often `Any` is used."""
        return sum(isinstance(node, ast.Name) and node.id == "Any" for node in self.nodes)

    def reason_in(self, first: int, last: int) -> bool:
        """Whether one of these lines says why what it stands in is one story."""
        return any(REASON in line for line in self.text.splitlines()[first - 1 : last])


def modules(room: Path) -> list[Module]:
    """Return every module below a folder."""
    return [
        Module(path.relative_to(room).as_posix(), path.read_text("utf-8"))
        for path in sorted(room.rglob("*.py"))
    ]


def length(function: Function) -> int:
    """Return the lines of a function, without its docstring."""
    first = function.body[0]
    return _lines(function, function) - (_lines(first, first) if _is_docstring(first) else 0)


def long_functions(found: list[Module]) -> dict[str, int]:
    """Return the functions over `LONGEST_FUNCTION` lines, as "module:name", and their lengths."""
    lengths = {f"{module.name}:{f.name}": length(f) for module in found for f in module.functions}
    return {name: lines for name, lines in lengths.items() if lines > LONGEST_FUNCTION}


def without_reason(found: list[Module]) -> set[str]:
    """Return the modules and functions that are too long and do not say why."""
    large = {m.name for m in found if m.length > LONGEST_MODULE and not m.reason_in(1, m.length)}
    for module in found:
        for function in module.functions:
            assert function.end_lineno is not None
            told = module.reason_in(function.lineno, function.end_lineno)
            if length(function) > LONGEST_FUNCTION and not told:
                large.add(f"{module.name}:{function.name}")
    return large


def _is_docstring(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _lines(first: ast.stmt, last: ast.stmt) -> int:
    assert last.end_lineno is not None
    return last.end_lineno - first.lineno + 1


def _name(node: ast.AST) -> str | None:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None


def table(root: Path) -> str:
    """Return the figures of a checkout."""
    found = modules(root / "vqdoctor")
    longest = max(found, key=lambda module: module.length)
    long = sorted(long_functions(found).items(), key=lambda told: -told[1])
    rows = [
        ("lines of code", f"{sum(module.code for module in found):,}"),
        ("files", f"{len(found):,}"),
        (f"functions over {LONGEST_FUNCTION} lines", str(len(long))),
        *((f"  {name}", str(lines)) for name, lines in long),
        ("largest module", f"{longest.length:,}  {longest.name}"),
        (f"modules over {LONGEST_MODULE} lines", str(sum(m.length > LONGEST_MODULE for m in found))),
        (f"private, called once, {CRUMB} lines or less", str(sum(len(list(m.crumbs)) for m in found))),
        ("Any", f"{sum(module.anys for module in found):,}"),
        ("lines of code in tests", f"{sum(module.code for module in modules(root / 'tests')):,}"),
    ]
    return "\n".join(f"{name:<44}{value}" for name, value in rows)


if __name__ == "__main__":
    print(table(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parents[1]))
