"""`make new-check`: its refusals, and what the contract says of the files that it writes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from new_check import Refused, main, new_check
from processes import python

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("code", "name", "why"),
    [
        ("VQ501", "some-name", "VQ501 is codebook-collapse"),
        ("VQ799", "some-name", "no code"),
        ("501", "some-name", "no code"),
        ("", "", "no code"),
        ("VQ599", "Some Name", "no name"),
        ("VQ599", "dead-codes", "taken"),
        ("VQ599", "straight-through", "taken"),
        ("VQ599", "shuffle", "taken"),
    ],
)
def test_a_code_or_name_that_cannot_be_had_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], code: str, name: str, why: str
) -> None:
    with pytest.raises(Refused, match=why):
        new_check(tmp_path, code, name)
    assert main([code, name]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: ") and why in first and second.startswith("help: ")


def test_the_contract_asks_for_what_is_left_to_fill_in(tmp_path: Path) -> None:
    for folder in ("vqdoctor", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    check, test = new_check(tmp_path, "VQ599", "some-name")
    assert (check.name, test.name) == ("vq599_some_name.py", "test_vq599.py")
    done = python(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "VQ599 or vq599"),
        *("tests/checks/test_contract.py", "tests/checks/test_vq599.py"),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    failed = {line.split("::")[1].split(" ")[0] for line in done.stdout.splitlines() if "FAILED" in line}
    assert {name.split("[")[0] for name in failed} == {
        "test_nothing_is_left_to_fill_in",
        "test_the_docs_say_what_is_wrong_and_have_their_headings_in_order",
        "test_examples_behave",
        "test_limits",
    }, done.stdout
