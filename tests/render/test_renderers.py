"""What holds for every format."""

from __future__ import annotations

import pytest
from processes import python

from vqdoctor.core.report import Report
from vqdoctor.render import RenderOptions, all_renderers


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


def test_no_format_loads_what_only_its_rendering_needs() -> None:
    script = (
        "import sys; from vqdoctor.render import all_renderers, renderer_of; renderer_of('json')\n"
        "assert 'rich' not in sys.modules, 'one format loads another'\n"
        "all_renderers()\n"
        "assert 'rich' in sys.modules and 'junitparser' not in sys.modules\n"
    )
    done = python("-c", script)
    assert done.returncode == 0, done.stderr
