"""What a gate decided, in the formats for readers, and in JSON; of one checkpoint and of several."""

from __future__ import annotations

import json
import re

import pytest
from markdown_it import MarkdownIt
from rich.cells import cell_len

from vqdoctor.core.report import Report
from vqdoctor.render import RenderOptions, all_renderers, format_names, renderer_of


def shown(format: str, *reports: Report, **options: object) -> str:
    return renderer_of(format).render_all(reports, RenderOptions(**options))  # type: ignore[arg-type]


def test_names_are_known_without_an_import() -> None:
    assert set(format_names()) == set(all_renderers())
    assert all(renderer_of(name).name == name for name in format_names())


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("gate_failed", "GATE FAILED: perplexity on vq, VQ101 on vq, VQ501 on vq"),
        ("gate_inconclusive", "GATE INCONCLUSIVE: perplexity on vq, accuracy"),
        ("gate_passed", "GATE PASSED: 1 assertion holds, 1 warning, 1 known problem hidden"),
    ],
)
def test_what_decided_stands_first_and_last(reports: dict[str, Report], name: str, line: str) -> None:
    lines = shown("rich", reports[name]).splitlines()
    assert lines[0] == lines[-1] == line


def test_every_assertion_stands_in_the_report_with_its_reason(reports: dict[str, Report]) -> None:
    text = shown("rich", reports["gate_passed"])
    assert re.search(r"^pass +perplexity on vq +perplexity is 1\.0", text, re.MULTILINE)
    assert re.search(r"^warn +usage on vq", text, re.MULTILINE)
    assert re.search(r"^known +ece", text, re.MULTILINE)


def before_sections(text: str) -> str:
    """What a pull request shows of the gate itself."""
    return re.split(r"^\*\*(?:What is wrong|VQ layer)", text, flags=re.MULTILINE)[0]


def test_markdown_has_the_word_and_a_row_for_every_assertion(reports: dict[str, Report]) -> None:
    for name, word in (("gate_passed", "passed"), ("gate_failed", "failed")):
        text = shown("markdown", reports[name])
        assert text.startswith(f"**vqdoctor gate: {word}**\n\n")
        gate = reports[name].gate
        assert gate is not None
        html = MarkdownIt("commonmark").enable("table").render(before_sections(text))
        assert html.count("<tr>") == 1 + len(gate.judgements)
        assert html.count("<td>") == 5 * len(gate.judgements)
    assert "| known | ece &lt;= 0.05 | the model | 0.2 |" in shown("markdown", reports["gate_passed"])
    assert "| accuracy &gt;= 50% | the model | unknown |" in shown("markdown", reports["gate_inconclusive"])


def test_a_hostile_layer_gets_one_row(reports: dict[str, Report]) -> None:
    head = before_sections(shown("markdown", reports["gate_hostile"]))
    html = MarkdownIt("commonmark").enable("table").render(head)
    assert (html.count("<tr>"), html.count("<td>")) == (2, 5)
    assert "<img" not in html


def test_without_a_gate_there_is_no_word_of_one(reports: dict[str, Report]) -> None:
    for format in ("rich", "markdown"):
        assert "gate" not in shown(format, reports["collapsed"]).lower()


@pytest.mark.parametrize("width", [50, 80])
@pytest.mark.parametrize("ascii", [False, True])
def test_several_on_a_terminal(reports: dict[str, Report], width: int, ascii: bool) -> None:
    several = [r for r in reports.values() if r.gate]
    text = shown("rich", *several, width=width, ascii=ascii)
    assert all(cell_len(line) <= width and line == line.rstrip() for line in text.splitlines())
    assert text.isascii() or not ascii
    assert "GATE FAILED: 2 failed, 1 inconclusive, 1 passed, of 4 checkpoints" in " ".join(text.split())


def test_several_in_markdown_begin_with_a_table(reports: dict[str, Report]) -> None:
    text = shown("markdown", reports["gate_passed"], reports["gate_inconclusive"])
    assert text.startswith("**GATE INCONCLUSIVE: ")
    assert "| `sample_checkpoints/no-ste.pt` | passed | HEALTHY |" in text
    assert text.count("### vqdoctor:") == 2


def test_several_in_json_are_reports_that_read_back(reports: dict[str, Report]) -> None:
    given = [reports["gate_inconclusive"], reports["gate_failed"], reports["gate_passed"]]
    value = json.loads(shown("json", *given))
    assert (value["schema"], value["gate"]) == (1, {"status": "fail"})
    assert [Report.from_dict(item) for item in value["reports"]] == given
    assert json.loads(shown("json", *given[::2]))["gate"] == {"status": "inconclusive"}
    assert json.loads(shown("json", given[2], given[2]))["gate"] == {"status": "pass"}
    assert json.loads(shown("json", reports["healthy"], reports["collapsed"]))["gate"] is None


def test_one_report_is_the_same_alone_and_as_the_only_one_of_several(reports: dict[str, Report]) -> None:
    for name, renderer in all_renderers().items():
        for report in reports.values():
            assert shown(name, report) == renderer.render(report, RenderOptions())
