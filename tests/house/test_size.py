"""No module and no function grows past what is read in one go, or it says why."""

from __future__ import annotations

from pathlib import Path

import pytest
from size import Module, length, modules, table, without_reason

import vqdoctor

ROOM = Path(vqdoctor.__file__).parent


def test_what_is_large_says_why() -> None:
    large = without_reason(modules(ROOM))
    assert large == set(), "split it, or let a line that begins with 'One story: ' say why not"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", 0),
        ("x = 1  # said\n\n# and more\n", 1),
        ('"""A page.\n\nOf two lines."""\n\nx = 1\n"""Of x."""\n', 1),
        ('x = """\n\n  # no comment\n"""\n', 4),
        ("def f(\n    a,\n):\n    'What it does.'\n    return a\n", 4),
        ("x = [\n    # why\n    1,\n\n]\n", 3),
    ],
)
def test_a_line_of_code_holds_code(text: str, code: int) -> None:
    assert Module("a.py", text).code == code


def test_a_function_is_measured_without_its_docstring_and_with_those_inside_of_it() -> None:
    text = "def f(a):\n    '''Two.\n    Lines.'''\n    def g():\n        return a\n    return g\n"
    assert [length(function) for function in Module("a.py", text).functions] == [4, 2]


def test_a_crumb_is_private_short_and_called_once() -> None:
    crumb = "def _f():\n    'Doc.'\n    return 1\n"
    assert list(Module("a.py", crumb + "print(_f())\n").crumbs) == ["_f"]
    assert list(Module("a.py", crumb + "print(_f(), _f())\n").crumbs) == []
    assert list(Module("a.py", crumb.replace("_f", "f") + "print(f())\n").crumbs) == []
    long = "def _f(x):\n" + "    x += 1\n" * 5 + "_f(1)\n"
    assert list(Module("a.py", long).crumbs) == []


@pytest.mark.parametrize("reason", [False, True])
def test_a_reason_counts_where_it_stands(reason: bool) -> None:
    said = "    # One story: a list.\n" if reason else "    # A list.\n"
    text = "def f(x):\n" + said + "    x += 1\n" * 60 + "\n" + "def g(x):\n" + "    x += 1\n" * 60
    assert without_reason([Module("a.py", text)]) == {"a.py:g"} | (set() if reason else {"a.py:f"})


def test_the_table_names_what_is_large(tmp_path: Path) -> None:
    for room in ("vqdoctor", "tests"):
        (tmp_path / room).mkdir()
    (tmp_path / "vqdoctor" / "a.py").write_text(
        "from typing import Any\ndef f(x: Any):\n" + "    x += 1\n" * 60
    )
    told = [line.split() for line in table(tmp_path).splitlines()]
    assert ["a.py:f", "61"] in told and ["largest", "module", "62", "a.py"] in told
    assert ["lines", "of", "code", "62"] in told and ["Any", "1"] in told
