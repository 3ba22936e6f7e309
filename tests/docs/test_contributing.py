"""CONTRIBUTING's worked example is a check, and the paths that it names exist."""

from __future__ import annotations

import re
import sys
from types import ModuleType

import pytest
from pages import ROOT

import vqdoctor.core.check

TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def test_the_worked_example_is_a_check_whose_examples_behave(monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    module = ModuleType("vq321_ema_too_short")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where dataclasses look
    exec(block, vars(module))
    check = module.CHECK
    assert isinstance(check, vqdoctor.core.check.Check)
    for example in check.examples:
        found = check.judge({type(evidence): evidence for evidence in example.evidence})
        assert bool(found) is example.fires, example.title


def test_the_paths_exist() -> None:
    for path in re.findall(r"`((?:tests|vqdoctor)/[\w/.]*)`", TEXT):
        if "vq321" not in path:
            assert (ROOT / path).exists(), path
    for cell in re.findall(r"^\| \w+ \| (`.*?`) \| `\w+ = ", TEXT, re.MULTILINE):
        for path in re.findall(r"`(.*?)`", cell):
            assert (ROOT / "vqdoctor" / path).exists(), path


def test_the_rooms_are_the_rooms() -> None:
    """The table names every room of the package, in the order of the import contract."""
    import tomllib

    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [
        room.strip().removeprefix("vqdoctor.")
        for layer in contracts[0]["layers"]
        for room in layer.split("|")
    ]
    table = TEXT.split("## The rooms")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", table, re.MULTILINE)
    assert [room for row in rows for room in re.findall(r"`(\w+)`", row)] == layers
