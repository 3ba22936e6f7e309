"""The terminal's report: the facts are there, the first ones first, and nothing breaks the terminal."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len

from vqdoctor.checks import all_checks
from vqdoctor.core.evidence import OptimizerMemory, Unavailable, Usage
from vqdoctor.core.report import Report
from vqdoctor.remedies import with_advice
from vqdoctor.render import RenderOptions, all_renderers
from vqdoctor.render.rich import _cells

NAMES = (
    "collapsed", "healthy", "at_risk", "inconclusive", "incomplete", "hostile",
    "gate_passed", "gate_failed", "gate_inconclusive", "gate_hostile", "unexplained", "levels",
)  # fmt: skip


def shown(report: Report, **options: object) -> str:
    return all_renderers()["rich"].render(report, RenderOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [50, 80, 120])
@pytest.mark.parametrize("ascii", [False, True])
def test_no_line_is_wider_than_the_terminal(
    reports: dict[str, Report], name: str, width: int, ascii: bool
) -> None:
    for line in shown(reports[name], width=width, ascii=ascii).splitlines():
        assert cell_len(line) <= width, line
        assert line == line.rstrip()


def test_code_of_every_remedy_fits_in_80_columns() -> None:
    indent = 6
    remedies = with_advice(all_checks())
    assert [(r.name, line) for r in remedies for line in r.code.splitlines() if len(line) + indent > 80] == []


def test_code_is_never_broken(reports: dict[str, Report]) -> None:
    assert "z_q = z_e + (z_q - z_e).detach()\n" in shown(reports["collapsed"], width=40)


def test_verdict_and_first_cause_stand_in_the_first_line_and_in_the_last(reports: dict[str, Report]) -> None:
    lines = shown(reports["collapsed"]).splitlines()
    assert lines[0] == "COLLAPSED: VQ101 straight-through-missing on vq, 1 more cause, 2 symptoms"
    assert lines[-1] == "COLLAPSED: begin with VQ101; more: vqdoctor explain VQ101"


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("healthy", "HEALTHY: no error and no warning in 1 VQ layer, judged by EMA counts"),
        ("at_risk", "AT RISK: VQ302 ema-not-converged, 1 symptom"),
        ("inconclusive", "INCONCLUSIVE: no VQ layer was found"),
        ("incomplete", "HEALTHY, BUT INCOMPLETE: 1 check crashed"),
    ],
)
def test_first_line_says_how_it_is(reports: dict[str, Report], name: str, first: str) -> None:
    assert shown(reports[name]).splitlines()[0] == first


def test_usage_of_a_layer_with_interval_and_source_best_source_first(reports: dict[str, Report]) -> None:
    text = shown(reports["collapsed"])
    batch = "perplexity 1.0 of 256 [1.0–1.0], 1 code used, batch of 28,752 vectors"
    assert batch in text
    assert text.index(batch) < text.index("1 code used, EMA over ~199 batches")
    assert "1 active, 0 rare, 255 unused" in text


def test_the_largest_count_that_a_float_holds_has_a_bar(reports: dict[str, Report]) -> None:
    report = reports["collapsed"]
    usages = [e for e in report.evidence if isinstance(e, Usage)]
    assert usages
    evidence = tuple(
        e.replace(count_quantiles=(0.0, 1.0, 1e308)) if isinstance(e, Usage) else e for e in report.evidence
    )
    assert "█ least to most used" in shown(replace(report, evidence=evidence))


def test_input_and_model_are_named(reports: dict[str, Report]) -> None:
    text = " ".join(shown(reports["collapsed"]).split())
    assert "x 1797×1×8×8, range 0 to 1, mean 0.3053, std 0.3761, 10 labels" in text
    assert "accuracy 8.1 % with VQ, 93.0 % without (chance 10.3 %), ECE 0.021" in text
    assert "397 samples of val" in text


def test_symptoms_stand_beneath_their_root_with_values_against_limits(reports: dict[str, Report]) -> None:
    lines = shown(reports["collapsed"], verbose=True).splitlines()
    root = next(i for i, line in enumerate(lines) if line.startswith("1.  ERROR VQ101"))
    symptom = next(i for i, line in enumerate(lines) if line.startswith("    2.  ERROR VQ501"))
    other = next(
        i for i, line in enumerate(lines) if line.startswith("4.  WARNING (medium confidence) VQ301")
    )
    assert root < symptom < other
    assert "    gradient ratio  0  limit 0.001" in lines[root:symptom]
    assert "      z_q = z_e + (z_q - z_e).detach()" in lines[root:symptom]
    assert "        perplexity  1 code  limit 51.2 codes" in lines[symptom:other]
    assert "    to be certain: --data batch.npz" in lines[other:]


def test_the_first_screen_has_verdict_cause_and_remedy(reports: dict[str, Report]) -> None:
    """The rest stands below: a terminal has 24 lines of 80 columns."""
    lines = shown(reports["collapsed"], width=80).splitlines()
    first = "\n".join(lines[:24])
    assert first.startswith("COLLAPSED: VQ101 ")
    assert "1.  ERROR VQ101" in first and "      z_q = z_e + (z_q - z_e).detach()" in first
    assert (
        first.index("remedy: straight-through")
        < "\n".join(lines).index("\nPLAN")
        < ("\n".join(lines).index("\nVQ LAYER"))
    )


def test_numbers_that_a_symptoms_message_tells_are_told_once(reports: dict[str, Report]) -> None:
    brief, whole = (shown(reports["collapsed"], verbose=verbose) for verbose in (False, True))
    assert "perplexity  1 code  limit 51.2 codes" in whole
    assert "perplexity  1 code  limit 51.2 codes" not in brief
    assert "    gradient ratio  0  limit 0.001" in brief


def test_the_code_of_the_plan_is_shown_when_asked_for(reports: dict[str, Report]) -> None:
    report = reports["collapsed"]
    step = replace(report.plan[0], step=9, remedy="another", code="another.step()", how="Take another step.")
    report = replace(report, plan=(*report.plan, step))
    brief, whole = (shown(report, verbose=verbose) for verbose in (False, True))
    assert "    another.step()" in whole and "-v shows" not in whole
    assert "9.  another  for VQ101: Take another step.\n    -v shows the code of every step\n" in brief
    assert "another.step()" not in brief


def test_a_flag_that_decides_is_told_once_under_a_root(reports: dict[str, Report]) -> None:
    report = reports["collapsed"]
    findings = tuple(f.replace(decide_with="--task T" if f.explained_by else "") for f in report.findings)
    assert len([f for f in findings if f.decide_with]) == 2
    assert shown(replace(report, findings=findings)).count("to be certain: --task T") == 1


def test_many_layers_have_two_lines_each(reports: dict[str, Report]) -> None:
    report = reports["collapsed"]
    one = report.layers[0]
    for amount, drawn in ((3, True), (4, False)):
        layers = tuple(replace(one, name=f"{one.name}.{i}") for i in range(amount))
        usages = tuple(
            e.replace(layer=layer.name) for layer in layers for e in report.evidence if isinstance(e, Usage)
        )
        text = shown(replace(report, layers=layers, evidence=usages))
        assert ("least to most used" in text) == drawn
        assert text.count("1 code used, batch of 28,752 vectors") == amount


def test_warnings_can_be_read_on_white_and_on_black(reports: dict[str, Report]) -> None:
    """Yellow letters have a contrast of 1.1 to 1.7 on white; black ones on yellow have 12 and more."""
    text = shown(reports["at_risk"], color=True)
    assert "\x1b[30;43mAT RISK" in text
    assert not re.search(
        r"\x1b\[(?:\d+;)*(?:33|93)(?:;\d+)*m", shown(reports["collapsed"], color=True) + text
    )


def test_value_and_limit_never_look_the_same_when_they_differ(reports: dict[str, Report]) -> None:
    assert "0.300004  limit 0.3" in shown(reports["collapsed"])


def test_plan_is_in_order_and_shows_code_that_was_not_shown(reports: dict[str, Report]) -> None:
    plan = shown(reports["collapsed"]).split("PLAN, IN THE ORDER TO TRY")[1]
    assert plan.index("1.  straight-through  for VQ101") < plan.index("2.  data-init  for VQ301")


def test_gaps_are_told_once_with_their_flag(reports: dict[str, Report]) -> None:
    text = shown(reports["healthy"], verbose=True, names={"VQ201": "vq-loss-too-heavy"})
    gaps = text.split("NOT EXAMINED")[1]
    assert gaps.count("no data was given") == 1
    assert "no data was given: gradient path, loss balance; check VQ201 vq-loss-too-heavy" in _flat(gaps)
    assert "→ --data BATCH" in _flat(gaps)


def test_gaps_fold_to_two_lines(reports: dict[str, Report]) -> None:
    gaps = re.split(r"NOT EXAMINED ─+\n", shown(reports["healthy"]))[1].split("\n\n")[0]
    assert gaps.splitlines() == [
        "  1 of 2 checks could not judge: no data was given",
        "  --data BATCH  lets up to 1 of them judge; vqdoctor inspect -v lists all",
    ]


def test_an_unexplained_symptom_heads_no_list_of_causes(reports: dict[str, Report]) -> None:
    lines = shown(reports["unexplained"], width=90, names={"VQ101": "straight-through-missing"}).splitlines()
    assert lines[0] == "COLLAPSED, cause not found: VQ501 codebook-collapse on vq, 1 more finding, 1 symptom"
    text = "\n".join(lines)
    assert "WHAT IS WRONG" not in text
    head = text.index("CAUSE NOT FOUND; THE MEASUREMENTS")
    assert head < text.index("1.  ERROR VQ501") < text.index("ruled out   VQ101 straight-through-missing")
    assert "to decide   --probe-steps 20" in text and text.count("--probe-steps 20") == 2
    assert text.index("ALSO WRONG, CAUSES FIRST") < text.index("3.  WARNING VQ401")
    assert _flat(text).endswith("cause not found: --probe-steps 20 decides; more: vqdoctor explain VQ501")


def test_equal_findings_of_several_levels_are_one_block(reports: dict[str, Report]) -> None:
    text = shown(reports["levels"])
    assert text.splitlines()[0] == "COLLAPSED: VQ302 ema-not-converged on rvq.layers.0–3, 1 symptom"
    assert text.count("VQ302 ema-not-converged on") == 2 and text.count("VQ501") == 1
    assert "Worst on rvq.layers.2: it is 0.9." in text
    assert "    start weight  0.9  limit 0.05  0.1–0.9 on 4 layers\n" in text
    assert "    2.  ERROR VQ501 codebook-collapse on rvq.layers.1, rvq.layers.3\n" in text


def _flat(text: str) -> str:
    return " ".join(text.split())


def test_a_crashed_check_is_loud(reports: dict[str, Report]) -> None:
    assert shown(reports["incomplete"]).splitlines()[1] == "CRASHED VQ503 on vq: ValueError: negative norm"


def test_candidates_come_with_the_flag_that_takes_one(reports: dict[str, Report]) -> None:
    text = shown(reports["inconclusive"])
    assert "token_embedding.weight  32000×512  no token of a VQ layer" in text
    assert "--codebook-key KEY" in text
    assert "2 sparse tensors were skipped" in text


def test_a_guess_says_so(reports: dict[str, Report]) -> None:
    text = shown(reports["at_risk"])
    assert "(low confidence)" in text
    assert "usage unknown from checkpoint: the EMA has not converged" in text


@pytest.mark.parametrize(
    ("memory", "told"),
    [
        ({"codebook_untouched_rows": 312}, "a gradient of 200 of 512 codes: perplexity is at most 200"),
        (
            {"codebook_untouched_rows": 312, "recent_codes": 90, "recent_codes_high": 100},
            "a gradient of 100 of 512 codes in the last 400 updates: perplexity is at most 100",
        ),
        ({"codebook_untouched_rows": 56, "weight_decay": 0.01}, ""),  # it may move every code
        ({"codebook_untouched_rows": 512}, ""),
        ({}, ""),
    ],
)
def test_the_optimizers_memory_bounds_a_usage_that_is_unknown(
    reports: dict[str, Report], memory: dict[str, Any], told: str
) -> None:
    report = reports["at_risk"]
    remembered = OptimizerMemory.healthy(**{"layer": "rvq.layers.1", "weight_decay": 0.0, **memory})
    text = _flat(shown(replace(report, evidence=(*report.evidence, remembered))))
    assert (told in text) if told else ("optimizer remembers" not in text)


def test_a_usage_that_one_source_shows_is_not_called_unknown(reports: dict[str, Report]) -> None:
    report = reports["collapsed"]
    gap = Unavailable(kind="usage", layer="vq", source="checkpoint", reason="EMA not converged", hint="")
    of_batch = tuple(e for e in report.evidence if not isinstance(e, Usage) or e.source == "batch")
    text = shown(replace(report, evidence=of_batch, unavailable=(*report.unavailable, gap)))
    assert "1 code used, batch of" in text and "usage unknown" not in text


def test_without_colour_there_is_no_escape_and_with_colour_there_is(reports: dict[str, Report]) -> None:
    plain, coloured = (shown(reports["collapsed"], color=c) for c in (False, True))
    assert "\x1b" not in plain
    assert "\x1b[1;31mCOLLAPSED" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain


@pytest.mark.parametrize("name", NAMES)
def test_ascii_is_ascii(reports: dict[str, Report], name: str) -> None:
    assert shown(reports[name], ascii=True).isascii()


@pytest.mark.parametrize(
    ("part", "whole", "cells"), [(0, 256, 0), (1, 256, 1), (255, 256, 31), (256, 256, 32), (300, 256, 32)]
)
def test_bar_shows_what_is_there_and_is_full_only_when_all_is(part: int, whole: int, cells: int) -> None:
    assert _cells(part, whole, 32) == cells


def test_a_wide_terminal_is_used_up_to_120_columns(reports: dict[str, Report]) -> None:
    for width, used in ((60, 60), (120, 120), (200, 120)):
        lines = shown(reports["collapsed"], width=width).splitlines()
        headings = [line for line in lines if line.endswith("───")]
        assert len(headings) >= 3 and {cell_len(line) for line in headings} == {used}
        assert all(lines[lines.index(line) - 1] == "" for line in headings), "a blank line before each"
