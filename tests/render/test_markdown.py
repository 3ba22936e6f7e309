"""The report for a pull request."""

from __future__ import annotations

from markdown_it import MarkdownIt

from vqdoctor.core.report import Report
from vqdoctor.render import RenderOptions, all_renderers
from vqdoctor.render.markdown import _Escape


def shown(report: Report) -> str:
    return all_renderers()["markdown"].render(report, RenderOptions())


def test_facts_of_a_collapsed_report(reports: dict[str, Report]) -> None:
    text = shown(reports["collapsed"])
    assert text.startswith("### vqdoctor: COLLAPSED\n\n**VQ101 straight-through-missing on vq")
    assert "```python\nz_q = z_e + (z_q - z_e).detach()\n```" in text
    assert "- **2. ERROR VQ501 codebook-collapse** on `vq`" in text
    assert "- gradient ratio 0 (limit 0.001)" in text
    assert "1. `straight-through` for VQ101" in text
    assert "<details><summary>Not examined</summary>" in text


def test_every_layer_is_one_row_of_three_cells(reports: dict[str, Report]) -> None:
    for name, layers in (("at_risk", 2), ("hostile", 1)):
        html = MarkdownIt("commonmark").enable("table").render(shown(reports[name]))
        assert html.count("<tr>") == layers + 1
        assert html.count("<td>") == 3 * layers


def test_a_command_is_not_python(reports: dict[str, Report]) -> None:
    assert "```\nvqdoctor fix ckpt.pt\n```" in shown(reports["at_risk"])


def test_a_fence_outlasts_the_backticks_in_its_code() -> None:
    assert _Escape(ascii=False).block("a = '````'")[0] == "`````python"


def test_a_crash_is_loud(reports: dict[str, Report]) -> None:
    text = shown(reports["incomplete"])
    assert text.startswith("### vqdoctor: HEALTHY, BUT INCOMPLETE")
    assert "**CRASHED** VQ503 on vq: ValueError: negative norm" in text
