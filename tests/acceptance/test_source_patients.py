"""`fix --source` on twelve small modules, each with a fault: patched, trained anew, and healthy.

`make accept` prints the table. Patients that end in a diff and a reason are named here.
"""

from __future__ import annotations

import difflib
import io
import tokenize
from pathlib import Path

import pytest
from source.trained import NAMES, copied, train

from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine import examine
from vqdoctor.engine.source import patch_source

pytestmark = pytest.mark.accept

SICK_STEPS, CURED_STEPS = 300, 600
SHOWN = ("gain_of_forty",)
"""Patients whose change is shown and not proven: the codes follow a normalised z_e too slowly."""


@pytest.mark.parametrize("name", NAMES)
def test_patched_trained_healthy(name: str, tmp_path: Path) -> None:
    """The cause is named, its patch proven, nothing else of the file changes, and the training is sound."""
    source = copied(name, tmp_path)
    checkpoint = train(source, tmp_path / "sick.pt", SICK_STEPS)
    user_model = UserModel(task=f"{source}:task")
    report = patch_source(checkpoint, source, user_model=user_model, settings=Settings(source=source))
    assert report.source is not None
    for step in report.source.steps:
        print(f"{name}: {step.remedy} {step.status} {step.what}; {step.reason}")
    if name in SHOWN:
        assert any(step.status == "unproven" and step.diff and step.reason for step in report.source.steps)
        return
    before = source.read_text()
    after = _applied(before, report.source.diff)
    print(f"{name}: {_changed_tokens(before, after)} of {len(_tokens(before))} tokens change")
    assert _lines_that_change(before, after) <= 8
    below = tmp_path / "patched"
    below.mkdir()
    patched = copied(name, below)
    patched.write_text(after)
    cured = train(patched, tmp_path / "cured.pt", CURED_STEPS)
    healed = examine(cured, user_model=UserModel(task=f"{patched}:task"))
    print(f"{name}: {report.verdict} -> {healed.verdict}; {_codes(report)} -> {_codes(healed)}")
    assert not [f.code for f in healed.findings if f.severity is Severity.ERROR]


def _codes(report: Report) -> str:
    return ", ".join(f"{f.code} {f.severity.label}" for f in report.roots()) or "nothing"


def _applied(text: str, diff: str) -> str:
    """Apply a unified diff, each of whose lines must fit."""
    old, new = text.splitlines(keepends=True), []
    at = 0
    for line in diff.splitlines(keepends=True)[2:]:
        if line.startswith("@@"):
            start = int(line.split()[1].split(",")[0][1:]) - 1
            new += old[at:start]
            at = start
        elif line.startswith("+"):
            new.append(line[1:])
        else:
            assert old[at] == line[1:]
            at += 1
            new += [line[1:]] if line.startswith(" ") else []
    return "".join([*new, *old[at:]])


def _tokens(text: str) -> list[str]:
    return [token.string for token in tokenize.generate_tokens(io.StringIO(text).readline)]


def _changed_tokens(before: str, after: str) -> int:
    matcher = difflib.SequenceMatcher(None, _tokens(before), _tokens(after), autojunk=False)
    return sum(max(b - a, d - c) for kind, a, b, c, d in matcher.get_opcodes() if kind != "equal")


def _lines_that_change(before: str, after: str) -> int:
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return sum(line.startswith(("+ ", "- ")) for line in lines)
