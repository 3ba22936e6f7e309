"""What holds for every format."""

from __future__ import annotations

import json

import pytest
from processes import python

from vqdoctor.core.report import Report
from vqdoctor.render import RenderOptions, all_renderers
from vqdoctor.render._text import against, count, listing, number, size


@pytest.mark.parametrize("format", sorted(all_renderers()))
def test_every_format_renders_every_report_with_its_first_cause(
    reports: dict[str, Report], format: str
) -> None:
    for report in reports.values():
        text = all_renderers()[format].render(report, RenderOptions())
        assert text.endswith("\n") and not text.endswith("\n\n")
        hidden = report.gate.hidden if report.gate else ()
        assert all(root.code in text for root in report.roots() if root.fingerprint not in hidden)


def test_names_and_suffixes_are_each_ones_own() -> None:
    renderers = all_renderers()
    assert {"rich", "json", "markdown"} <= renderers.keys()
    assert len({r.suffix for r in renderers.values()}) == len(renderers)


def test_json_reads_back_as_the_same_report(reports: dict[str, Report]) -> None:
    for report in reports.values():
        text = all_renderers()["json"].render(report, RenderOptions())
        assert Report.from_dict(json.loads(text)) == report


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1.0, "1"), (28_752, "28,752"), (0.00390625, "0.003906"), (51.2, "51.2"),
        (12_345.6, "12,346"), (1e-7, "1e-07"), (-2.5, "-2.5"), (1e30, "1e+30"),
    ],
)  # fmt: skip
def test_number(value: float, text: str) -> None:
    assert number(value) == text


def test_small_words() -> None:
    assert (count(1, "code"), count(2, "code"), count(0, "code")) == ("1 code", "2 codes", "0 codes")
    assert count(3, "batch", "batches") == "3 batches"
    assert against(0.300004, 0.3) == ("0.300004", "0.3")
    assert against(0.3, 0.3) == ("0.3", "0.3")
    assert (size(1), size(361_376), size(3 << 30)) == ("1 byte", "352.9 KiB", "3.0 GiB")
    assert listing(list("abc"), at_most=2) == "a, b and 1 more"


def test_no_format_loads_what_only_its_rendering_needs() -> None:
    script = (
        "import sys; from vqdoctor.render import all_renderers, renderer_of; renderer_of('json')\n"
        "assert 'rich' not in sys.modules, 'one format loads another'\n"
        "all_renderers()\n"
        "assert 'rich' in sys.modules and 'junitparser' not in sys.modules\n"
    )
    done = python("-c", script)
    assert done.returncode == 0, done.stderr
