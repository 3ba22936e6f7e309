"""The report as JSON: it reads back as the same report, and no terminal obeys it."""

from __future__ import annotations

import json

from vqdoctor.core.report import Report
from vqdoctor.render import RenderOptions, renderer_of


def test_json_reads_back_as_the_same_report(reports: dict[str, Report]) -> None:
    for report in reports.values():
        text = renderer_of("json").render(report, RenderOptions())
        assert Report.from_dict(json.loads(text)) == report


def test_json_keeps_one_finding_a_layer_whatever_the_formats_for_readers_fold(
    reports: dict[str, Report],
) -> None:
    texts = {renderer_of("json").render(reports["levels"], RenderOptions(verbose=v)) for v in (True, False)}
    (text,) = texts
    found = json.loads(text)["findings"]
    assert [f["layer"] for f in found if f["code"] == "VQ302"] == [f"rvq.layers.{i}" for i in range(4)]


def test_all_of_unicode_reads_back(reports: dict[str, Report], hostile_text: str) -> None:
    text = renderer_of("json").render(reports["hostile"], RenderOptions(ascii=True))
    assert text.isascii() and hostile_text in json.loads(text)["notes"]
