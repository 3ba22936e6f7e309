"""CONTRIBUTING's worked example is a check, and the paths that it names exist."""

from __future__ import annotations

import re

import pytest
from pages import ROOT

import vqdoctor.core.check

TEXT = (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.skipif(
    not hasattr(vqdoctor.core.check, "Advice"), reason="the example is written for checks with their advice"
)
def test_the_worked_example_is_a_check_whose_examples_behave() -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {"__name__": "vq311_ema_too_short"}
    exec(block.replace('"""', '__doc__ = """', 1), names)
    check = names["CHECK"]
    assert isinstance(check, vqdoctor.core.check.Check)
    for example in check.examples:
        found = check.judge({type(evidence): evidence for evidence in example.evidence})
        assert bool(found) is example.fires, example.title


def test_the_paths_exist() -> None:
    for path in re.findall(r"`((?:tests|vqdoctor)/[\w/.]*)`", TEXT):
        if "vq311" not in path:
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
        if "integrations" not in room
    ]
    table = TEXT.split("## The rooms")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", table, re.MULTILINE)
    assert [room for row in rows for room in re.findall(r"`(\w+)`", row)] == layers
