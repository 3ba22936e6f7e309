"""`vqdoctor explain` and `vqdoctor checks`: every check, in full, at 80 columns."""

from __future__ import annotations

import json
import subprocess

import pytest

from vqdoctor.checks import all_checks
from vqdoctor.cli._prose import reflow, section
from vqdoctor.cli.main import main
from vqdoctor.core.check import Check
from vqdoctor.remedies import with_advice


@pytest.mark.parametrize("check", all_checks(), ids=lambda c: c.code)
def test_every_check_is_explained(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", check.code]) == 0
    text = capsys.readouterr().out
    flat = " ".join(text.split())
    assert text.startswith(f"{check.code} {check.name} ")
    assert check.title in flat
    for name, default, doc in check.limit_docs():
        assert f"  {name} = {default:g}\n" in text
        assert " ".join(doc.split()) in flat
    for remedy in (r for r in with_advice([check]) if r.name in check.remedy_names):
        assert f"\n  {remedy.name}\n" in text
        assert all(line in text for line in remedy.code.splitlines())
        assert remedy.how in flat
    for title in ("Why it matters", "How to read it", "Remedy", "References"):
        assert section(check.doc, title), title
    too_wide = [line for line in text.splitlines() if len(line) > 80 and " " in line.strip()]
    assert too_wide == []


@pytest.mark.parametrize("word", ["vq101", "VQ101", "Straight-Through-Missing"])
def test_case_does_not_matter_and_names_do(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", word]) == 0
    assert capsys.readouterr().out.startswith("VQ101")


def test_checks_lists_all_in_the_order_of_stages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checks"]) == 0
    text = capsys.readouterr().out
    places = [text.index(f"{check.code} {check.name}\n") for check in all_checks()]
    assert places == sorted(places)
    assert max(map(len, text.splitlines())) <= 80


def test_checks_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checks", "-f", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["code"] for row in rows] == [check.code for check in all_checks()]
    assert rows[0]["limits"] == {name: default for name, default, _ in all_checks()[0].limit_docs()}


def test_prose_is_filled_and_code_and_items_keep_their_form() -> None:
    text = "one\ntwo three\n\n    code  as is\n\n- first\n  goes on\n- second"
    assert list(reflow(text, 11, "")) == [
        "one two", "three", "", "    code  as is", "", "- first", "  goes on", "- second",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "offers"), [("vqdoctor explain VQ10", "VQ101"), ("vqdoctor inspect -f j", "json")]
)
def test_the_shell_completes(shell, words: str, offers: str) -> None:  # type: ignore[no-untyped-def]
    done: subprocess.CompletedProcess[str] = shell(
        _VQDOCTOR_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS=words
    )
    assert offers in done.stdout, done.stderr
