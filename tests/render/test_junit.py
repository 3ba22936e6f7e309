"""JUnit XML as CI systems read it: fails where the run fails, and holds whatever a file calls its layers."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from junit2htmlreport.parser import Junit
from many_findings import many
from processes import python

from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.engine import exit_code
from vqdoctor.render import RenderOptions, renderer_of

Ends = dict[str, str]


def xml_of(*reports: Report, **options: Any) -> str:
    return renderer_of("junit").render_all(reports, RenderOptions(**options))


def ends_of(*reports: Report, **options: Any) -> Ends:
    """How every case ended, as CI systems see it: by the element in it."""
    root = ElementTree.fromstring(xml_of(*reports, **options))
    ends = {}
    for case in root.iter("testcase"):
        tags = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        assert len(tags) <= 1
        ends[case.attrib["name"]] = tags[0] if tags else "passed"
    return ends


def broken(ends: Ends) -> bool:
    return not {"failure", "error"}.isdisjoint(ends.values())


def test_judgements_and_outcomes_are_cases(reports: dict[str, Report]) -> None:
    assert ends_of(reports["gate_failed"]) == {
        "perplexity on vq": "failure",
        "dead on vq": "passed",
        "VQ101 on vq": "failure",
        "VQ501 on vq": "failure",
        "VQ102 on vq": "passed",
        "VQ201 on vq": "skipped",
        "VQ502 on vq": "skipped",
        "VQ301 on vq": "skipped",
        "VQ903": "passed",
    }


def test_what_only_warns_or_is_known_is_seen_and_does_not_fail(reports: dict[str, Report]) -> None:
    text = xml_of(reports["gate_passed"])
    assert ends_of(reports["gate_passed"]) == {
        "perplexity on vq": "passed",
        "usage on vq": "skipped",
        "ece": "skipped",
        "VQ501 on vq": "passed",
        "VQ201 on vq": "skipped",
    }
    assert 'message="warning: usage &gt;= 40%' in text
    assert 'message="known: it was there before: ece &lt;= 0.05' in text


def test_an_inconclusive_judgement_is_an_error(reports: dict[str, Report]) -> None:
    ends = ends_of(reports["gate_inconclusive"])
    assert (ends["perplexity on vq"], ends["accuracy"]) == ("error", "error")


@pytest.mark.parametrize("bar", [None, Severity.ERROR, Severity.WARNING])
def test_a_suite_is_green_exactly_where_the_run_exits_0(
    reports: dict[str, Report], bar: Severity | None
) -> None:
    for report in reports.values():
        green = report.gate.status == "pass" if report.gate else exit_code(report, bar) == 0
        assert broken(ends_of(report, bar=bar)) is not green


def test_counts_are_those_of_the_cases(reports: dict[str, Report]) -> None:
    everything = tuple(reports.values())
    root = ElementTree.fromstring(xml_of(*everything))
    suites = root.findall("testsuite")
    assert len(suites) == len(everything)
    for element in (root, *suites):
        for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(element.attrib[attribute]) == len(list(element.iter(tag)))
        assert int(element.attrib["tests"]) == len(list(element.iter("testcase")))


def test_an_independent_reader_reads_the_same(reports: dict[str, Report]) -> None:
    read = Junit(xmlstring=xml_of(reports["gate_failed"], many(300)))
    first, second = read.suites
    assert first.name == "sample_checkpoints/no-ste.pt"
    assert {case.name for case in first.failed()} == {"perplexity on vq", "VQ101 on vq", "VQ501 on vq"}
    assert {case.name for case in first.skipped()} == {"VQ201 on vq", "VQ502 on vq", "VQ301 on vq"}
    assert {case.name for case in first.passed()} == {"dead on vq", "VQ102 on vq", "VQ903"}
    (failure,) = [case for case in first.failed() if case.name == "VQ101 on vq"]
    assert "the straight-through estimator is missing" in failure.failure_msg
    assert len([case for case in second.failed() if case.name.startswith("VQ502")]) == 300


def test_the_same_check_on_two_files_is_two_cases() -> None:
    root = ElementTree.fromstring(xml_of(many(1, path="a.pt"), many(1, path="b.pt")))
    named = [(case.attrib["classname"], case.attrib["name"]) for case in root.iter("testcase")]
    assert len(named) == len(set(named)) == 4
    assert ("vqdoctor.a_pt.checks", "VQ502 on vq") in named


def test_two_assertions_on_one_figure_are_two_cases(reports: dict[str, Report]) -> None:
    report = reports["gate_inconclusive"]
    gate = report.gate
    assert gate is not None
    first = gate.judgements[0]
    twice = replace(gate, judgements=(first, replace(first, threshold=9.0, status="pass")))
    ends = ends_of(replace(report, gate=twice))
    assert (ends["perplexity on vq"], ends["perplexity on vq (2)"]) == ("error", "passed")


def test_names_hold_across_thresholds(reports: dict[str, Report]) -> None:
    report = reports["gate_failed"]
    gate = report.gate
    assert gate is not None
    moved = replace(gate, judgements=tuple(replace(j, threshold=9.0) for j in gate.judgements))
    assert ends_of(replace(report, gate=moved)).keys() == ends_of(report).keys()


@given(st.text(), st.booleans())
def test_any_layer_name_makes_well_formed_xml(name: str, ascii: bool) -> None:
    text = xml_of(many(2, layer=name), ascii=ascii)
    assert text.isascii() or not ascii
    ElementTree.fromstring(text.encode())


@pytest.mark.parametrize("name", ["]]>", "<failure/>", "&amp;", "a\nb", "\ufffe\uffff", "\x00", '"', "é漢"])
def test_a_layer_name_stays_text(name: str) -> None:
    root = ElementTree.fromstring(xml_of(many(1, layer=name)).encode())
    assert [case.tag for case in root.iter("failure")] == ["failure"]
    case = root.findall(".//testcase")[-1]
    assert "\n" not in case.attrib["name"]
    if name.isprintable() and not set(name) & set("\ufffe\uffff"):
        assert case.attrib["name"] == f"VQ502 on {name}"


def test_it_is_the_same_without_lxml(tmp_path: Path) -> None:
    """junitparser takes lxml where there is one; a CI job has none."""
    script = (
        "import sys; sys.modules['lxml'] = None\n"
        "from many_findings import many\n"
        "from vqdoctor.render import RenderOptions, renderer_of\n"
        "report = many(3, layer='é<>]]>\\x00\\ufffe')\n"
        "sys.stdout.write(renderer_of('junit').render(report, RenderOptions()))\n"
    )
    tests = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}", "PYTHONIOENCODING": "utf-8"}
    done = python("-c", script, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout == xml_of(many(3, layer="é<>]]>\x00\ufffe"))
    assert re.match(r"<\?xml version=\"1.0\" encoding=\"utf-8\"\?>\n<testsuites ", done.stdout)
