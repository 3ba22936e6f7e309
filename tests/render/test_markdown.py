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


def test_gaps_stay_whole_in_a_fold_with_the_names_of_the_checks(reports: dict[str, Report]) -> None:
    for verbose in (False, True):
        options = RenderOptions(verbose=verbose, names={"VQ201": "vq-loss-too-heavy"})
        text = all_renderers()["markdown"].render(reports["healthy"], options)
        folded = text.split("<summary>Not examined</summary>")[1].split("</details>")[0]
        assert (
            "- no data was given: gradient path, loss balance; check VQ201 vq-loss-too-heavy; `--data BATCH`"
            in folded
        )


def test_an_unexplained_symptom_is_no_cause(reports: dict[str, Report]) -> None:
    text = shown(reports["unexplained"])
    assert text.startswith("### vqdoctor: COLLAPSED, cause not found\n")
    assert "**Cause not found; the measurements**" in text
    assert "- to decide: `--probe-steps 20` added to the same command" in text


def test_equal_findings_of_several_levels_are_one_block(reports: dict[str, Report]) -> None:
    text = shown(reports["levels"])
    assert "**1. ERROR VQ302 ema-not-converged** on `rvq.layers.0–3`" in text
    assert "- start weight 0.9 (limit 0.05, 0.1–0.9 on 4 layers)" in text


def test_it_loads_nothing_from_the_network(reports: dict[str, Report]) -> None:
    for report in reports.values():
        html = MarkdownIt("commonmark", {"html": True}).enable("table").render(shown(report))
        assert "<img" not in html and "<a " not in html and "src=" not in html
