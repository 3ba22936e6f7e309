"""What every check must keep to, whoever adds it."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pytest

import vqdoctor.checks
from vqdoctor.checks import all_checks
from vqdoctor.core.check import Check, Example, NoEvidence
from vqdoctor.core.codec import decode, encode
from vqdoctor.core.evidence import Evidence
from vqdoctor.core.finding import Problem
from vqdoctor.remedies import all_remedies, with_advice

CHECKS = {check.code: check for check in all_checks()}
EXAMPLES = [(check, example) for check in CHECKS.values() for example in check.examples]
HEADINGS = ("## Why it matters", "## How to read it", "## Remedy", "## References")

each_check = pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
each_example = pytest.mark.parametrize(
    ("check", "example"), EXAMPLES, ids=[f"{check.code}-{example.title}" for check, example in EXAMPLES]
)


def judge(check: Check, example: Example) -> list[Problem]:
    return check.judge({type(evidence): evidence for evidence in example.evidence})


def test_all_nineteen_checks_of_the_first_release_are_found() -> None:
    expected = "101 102 103 201 202 301 302 303 304 401 501 502 503 601 602 603 901 902 903"
    assert set(expected.split()) <= {code.removeprefix("VQ") for code in CHECKS}


def test_codes_and_names_are_unique() -> None:
    assert len(CHECKS) == len(all_checks()) == len({check.name for check in CHECKS.values()})


@each_check
def test_the_first_digit_is_the_stage_and_the_file_is_named_after_code_and_name(check: Check) -> None:
    assert int(check.stage) == int(check.code.removeprefix("VQ")[0])
    stem = f"{check.code}_{check.name}".lower().replace("-", "_")
    assert (Path(vqdoctor.checks.__file__).parent / f"{stem}.py").is_file()
    assert check.evaluate.__module__ == f"vqdoctor.checks.{stem}"


@each_check
def test_it_has_a_test_file_of_its_own(check: Check) -> None:
    path = Path(__file__).with_name(f"test_{check.code.lower()}.py")
    assert path.is_file(), f"{path.name} is missing: its boundary cases, just inside and just outside"
    assert f'says("{check.code}", ' in path.read_text()


@each_check
def test_nothing_is_left_to_fill_in(check: Check) -> None:
    source = Path(inspect.getfile(check.evaluate)).read_text()
    test = Path(__file__).with_name(f"test_{check.code.lower()}.py").read_text()
    assert "TODO" not in source + test


@each_check
def test_the_name_is_the_problem_and_not_a_remedy(check: Check) -> None:
    assert check.name not in {remedy.name for remedy in with_advice(all_checks())}


@each_check
def test_the_docs_say_what_is_wrong_and_have_their_headings_in_order(check: Check) -> None:
    assert check.doc.splitlines()[0] == check.title
    found = [line for line in check.doc.splitlines() if line.startswith("#")]
    assert tuple(found) == HEADINGS
    parts = check.doc.split("\n## ")
    assert all(len(part.split("\n", 1)[1].strip()) > 30 for part in parts[1:])


@each_check
def test_it_has_a_remedy_or_advice_and_its_docs_name_the_remedies_that_act(check: Check) -> None:
    section = check.doc.split("## Remedy")[1].split("## References")[0]
    assert check.remedy_names
    assert set(check.remedies) <= {remedy.name for remedy in all_remedies()}
    assert [name for name in check.remedies if name not in section] == []


def test_the_names_of_remedies_and_advice_are_unique() -> None:
    names = [remedy.name for remedy in with_advice(all_checks())]
    assert len(set(names)) == len(names)


@each_check
def test_advice_is_fit_for_a_terminal(check: Check) -> None:
    for advice in check.own_advice:
        how, code = advice.how, advice.code
        assert how.endswith(".") and "\n" not in how and "  " not in how
        assert all(len(line) <= 76 for line in code.splitlines())
        assert 1 <= len(code.splitlines()) <= 4
        compile(code, advice.name, "exec")


@each_check
def test_every_limit_is_a_float_with_its_meaning_and_reason(check: Check) -> None:
    for name, default, doc in check.limit_docs():
        assert type(default) is float, name
        assert len(doc) > 60 and doc.endswith("."), name


@each_check
def test_explained_by_names_known_causes_of_no_later_stage(check: Check) -> None:
    for code in check.explained_by:
        assert code in CHECKS
        # what the file holds, the mode that all figures are taken in, and steps that let nothing settle or
        # that move nothing come before every stage
        assert code in ("VQ901", "VQ606", "VQ404", "VQ406") or CHECKS[code].stage <= check.stage
    assert len(set(check.explained_by)) == len(check.explained_by)


@each_check
def test_explained_by_is_closed_and_without_circles(check: Check) -> None:
    assert check.code not in check.explained_by
    for code in check.explained_by:
        assert set(CHECKS[code].explained_by) <= set(check.explained_by), code


@each_check
def test_meaningless_after_names_checks_that_are_judged_earlier(check: Check) -> None:
    assert all(code in CHECKS and code < check.code for code in check.meaningless_after)


@each_check
def test_there_is_an_example_that_fires_and_one_that_does_not(check: Check) -> None:
    assert {example.fires for example in check.examples} == {True, False}


@each_example
def test_examples_behave(check: Check, example: Example) -> None:
    assert bool(judge(check, example)) is example.fires


@each_example
def test_examples_are_about_one_layer_and_survive_a_report(check: Check, example: Example) -> None:
    layers = {evidence.layer for evidence in example.evidence} - {None}
    assert len(layers) <= 1
    assert len({type(evidence) for evidence in example.evidence}) == len(example.evidence)
    for evidence in example.evidence:
        assert decode(Evidence, encode(evidence), "evidence") == evidence


@each_example
def test_messages_are_one_sentence_with_the_decisive_numbers_beside_it(
    check: Check, example: Example
) -> None:
    for problem in judge(check, example):
        message = problem.message
        assert message.endswith(".") and "\n" not in message and "  " not in message
        assert ". " not in message, "one sentence"
        assert len(message) < 240
        assert problem.measurements
        assert any(letter.isdigit() for letter in message) or check.code == "VQ902"


@each_check
def test_without_any_evidence_a_check_is_skipped_and_not_passed(check: Check) -> None:
    with pytest.raises(NoEvidence):
        check.judge({})


@each_check
def test_required_evidence_that_is_missing_is_named(check: Check) -> None:
    given = {type(evidence): evidence for evidence in check.examples[0].evidence}
    for wanted in check.wants:
        if wanted.required:
            rest = {kind: evidence for kind, evidence in given.items() if kind is not wanted.evidence}
            with pytest.raises(NoEvidence, match=wanted.evidence.kind):
                check.judge(rest)


@each_check
def test_limits_are_used(check: Check) -> None:
    """A limit moved far enough one way or the other changes what some example says."""
    for name, _, _ in check.limit_docs():
        changed = [
            dataclasses.replace(check, limits=dataclasses.replace(check.limits, **{name: value}))
            for value in (-1e9, 1e9)
        ]
        assert any(
            outcome(check, example) != outcome(moved, example)
            for moved in changed
            for example in check.examples
        ), name


def outcome(check: Check, example: Example) -> object:
    try:
        return judge(check, example)
    except Exception as error:
        return repr(error)
