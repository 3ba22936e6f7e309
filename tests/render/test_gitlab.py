"""GitLab's Code Quality report: the fields that GitLab reads, and fingerprints that stay and differ."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from many_findings import many

from vqdoctor.core.report import Report
from vqdoctor.render import RenderOptions, renderer_of

FIELDS = {"description", "check_name", "fingerprint", "severity", "location"}
SEVERITIES = {"info", "minor", "major", "critical", "blocker"}


def issues(*reports: Report, **options: Any) -> list[dict[str, Any]]:
    return json.loads(renderer_of("gitlab").render_all(reports, RenderOptions(**options)))


def test_every_issue_has_the_fields_that_gitlab_reads(reports: dict[str, Report]) -> None:
    for case in (*((report,) for report in reports.values()), tuple(reports.values()), (many(300),)):
        told = issues(*case)
        for issue in told:
            assert issue.keys() == FIELDS
            assert issue["severity"] in SEVERITIES
            assert issue["location"]["lines"] == {"begin": 1}
            assert not issue["location"]["path"].startswith("./")
        fingerprints = [issue["fingerprint"] for issue in told]
        assert len(set(fingerprints)) == len(fingerprints)


def test_what_decided_is_a_blocker_and_what_is_known_is_left_out(reports: dict[str, Report]) -> None:
    told = {issue["check_name"]: issue["severity"] for issue in issues(reports["gate_failed"])}
    assert told == {
        "gate/perplexity": "blocker",
        "VQ101": "critical",
        "VQ501": "critical",
        "VQ301": "major",
        "VQ903": "info",
    }


def test_fingerprints_hold_across_messages_and_ranks_and_differ_across_files(
    reports: dict[str, Report],
) -> None:
    report = reports["collapsed"]
    told = replace(
        report, findings=tuple(replace(f, message="other", rank=9 - f.rank) for f in report.findings)
    )
    first, second = ([i["fingerprint"] for i in issues(x)] for x in (report, told))
    assert first == second
    moved = replace(report, checkpoint=replace(report.checkpoint, path="b.pt"))
    assert not set(first) & {i["fingerprint"] for i in issues(moved)}
    there = {i["fingerprint"] for i in issues(report, folder="/builds/x", root="/builds/x")}
    assert there == set(first), "the folder of the job is no part of it"


def test_a_healthy_file_is_an_empty_list(reports: dict[str, Report]) -> None:
    assert issues(reports["healthy"]) == []


@pytest.mark.parametrize("path", ["./runs/a.pt", "runs//a.pt", "runs/b/../a.pt", "/builds/x/runs/a.pt"])
def test_paths_are_within_the_repository(path: str) -> None:
    told = issues(many(1, path=path), folder="/builds/x", root="/builds/x")
    assert {issue["location"]["path"] for issue in told} == {"runs/a.pt"}


@given(st.text(), st.booleans())
def test_any_layer_name_makes_json(name: str, ascii: bool) -> None:
    text = renderer_of("gitlab").render(many(1, layer=name), RenderOptions(ascii=ascii))
    assert len(json.loads(text)) == 2
    assert text.isascii() or not ascii
