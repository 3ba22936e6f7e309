"""The document between a report and its formats for readers: the order of its parts and their values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from enum import Enum

import pytest

from vqdoctor.core.finding import Measurement
from vqdoctor.core.levels import Severity
from vqdoctor.core.report import Report
from vqdoctor.render import RenderOptions
from vqdoctor.render._compose import document, documents
from vqdoctor.render._document import Block, Document, Items, Layers, Section

NAMES = {"VQ101": "straight-through-missing", "VQ201": "vq-loss-too-heavy", "VQ507": "encoder-collapsed"}


def of(report: Report, *, verbose: bool = False) -> Document:
    return document(report, RenderOptions(names=NAMES, verbose=verbose))


def section(doc: Document, title: str) -> Section:
    return next(section for section in doc.sections if section.title == title)


def blocks(doc: Document) -> list[Block]:
    roots = [node for s in doc.sections for node in s.nodes if isinstance(node, Block)]
    return [block for root in roots for block in (root, *root.symptoms)]


def leaves(value: object) -> Iterator[object]:
    if is_dataclass(value):
        for field in fields(value):
            yield from leaves(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def test_it_is_a_tree_of_plain_values(reports: dict[str, Report]) -> None:
    for report in reports.values():
        for leaf in leaves(of(report)):
            assert leaf is None or isinstance(leaf, str | int | float | Enum)


def test_sections_stand_in_the_order_of_reading(reports: dict[str, Report]) -> None:
    doc = of(reports["collapsed"])
    assert [section.title for section in doc.sections] == [
        "What is wrong, causes first", "Plan, in the order to try", "VQ layer", "", "Notes", "Not examined",
    ]  # fmt: skip
    assert (doc.verdict.word, doc.verdict.tone) == ("COLLAPSED", "bad")
    assert (doc.next_step, doc.command) == ("begin with VQ101", "vqdoctor explain VQ101")
    assert [block.number for block in blocks(doc)] == [1, 2, 3, 4, 5]


def test_every_finding_is_in_some_block(reports: dict[str, Report]) -> None:
    for report in reports.values():
        assert {b.code for b in blocks(of(report))} == {f.code for f in report.findings}


def test_code_of_a_remedy_stands_once(reports: dict[str, Report]) -> None:
    doc = of(reports["collapsed"])
    (plan,) = section(doc, "Plan, in the order to try").nodes
    assert isinstance(plan, Items) and [step.code for step in plan.items] == ["", ""]
    assert [b.remedy_code for b in blocks(doc) if b.remedy_code] == [
        "z_q = z_e + (z_q - z_e).detach()",
        "codebook.copy_(kmeans(z_e, K))",
    ]


def test_a_bar_has_the_codes_of_the_best_source(reports: dict[str, Report]) -> None:
    (layers,) = section(of(reports["collapsed"]), "VQ layer").nodes
    assert isinstance(layers, Layers)
    (layer,) = layers.layers
    assert layer.bar is not None
    assert (layer.bar.active, layer.bar.rare, layer.bar.unused) == (1, 0, 255)
    assert len(layer.usages) == 2


def test_equal_findings_over_levels_are_one_block_with_the_worst_and_the_range(
    reports: dict[str, Report],
) -> None:
    root, symptom = blocks(of(reports["levels"]))
    assert (root.layers, symptom.layers) == ("rvq.layers.0–3", "rvq.layers.1, rvq.layers.3")
    (measured,) = root.measurements
    assert (measured.value, measured.limit) == ("0.9", "limit 0.05")
    assert measured.range == "0.1–0.9 on 4 layers"
    assert root.message == "Worst on rvq.layers.2: it is 0.9."
    assert symptom.message == "It collapsed."


def test_a_finding_of_another_severity_or_twice_on_a_layer_is_a_block_of_its_own(
    reports: dict[str, Report],
) -> None:
    report = reports["levels"]
    roots = report.roots()
    mixed = (replace(roots[0], severity=Severity.WARNING), roots[1], replace(roots[1], message="more"))
    places = [block.layers for block in blocks(of(replace(report, findings=mixed)))]
    assert places == ["rvq.layers.0", "rvq.layers.1", "rvq.layers.1"]


def test_the_worst_is_the_farthest_from_its_limit_on_either_side(reports: dict[str, Report]) -> None:
    report = reports["levels"]
    for values, worst in (((0.2, 0.01, 0.1), "0.01"), ((0.4, 0.9, 0.5), "0.9")):
        found = tuple(
            replace(root, measurements=(Measurement(name="share", value=value, limit=0.3),))
            for root, value in zip(report.roots(), values, strict=False)
        )
        (block,) = blocks(of(replace(report, findings=found)))
        assert block.measurements[0].value == worst


def test_only_causes_that_passed_are_ruled_out(reports: dict[str, Report]) -> None:
    doc = of(reports["unexplained"])
    *_, items = section(doc, "Cause not found; the measurements").nodes
    assert isinstance(items, Items)
    assert {item.label: item.text for item in items.items} == {
        "ruled out": "VQ101 straight-through-missing",
        "still open": "2 checks for causes could not judge",
        "to decide": "added to the same command",
    }
    assert items.items[-1].name == "--probe-steps 20"
    assert doc.verdict.word == "COLLAPSED, cause not found"


def test_of_many_checks_that_are_ruled_out_the_codes_are_told(reports: dict[str, Report]) -> None:
    whole = reports["unexplained"]
    passed = tuple(replace(whole.outcomes[3], code=f"VQ{number}") for number in range(101, 201))
    doc = of(replace(whole, outcomes=(*whole.outcomes[:3], *passed)))
    *_, items = section(doc, "Cause not found; the measurements").nodes
    assert isinstance(items, Items)
    (text,) = (item.text for item in items.items if item.label == "ruled out")
    assert text.startswith("VQ101, VQ102, ") and text.endswith("VQ200; vqdoctor checks names them")


@pytest.mark.parametrize("code", ["VQ505", "VQ506", "VQ507"])
def test_a_cause_that_the_usage_itself_shows_is_one(code: str, reports: dict[str, Report]) -> None:
    report = reports["unexplained"]
    cause = replace(report.findings[0], code=code)
    doc = of(replace(report, findings=(cause, *report.findings[1:])))
    assert "cause not found" not in doc.verdict.word


def test_a_known_cause_before_a_symptom_keeps_the_heading(reports: dict[str, Report]) -> None:
    report = reports["unexplained"]
    cause = replace(reports["collapsed"].findings[0], layer="other")
    doc = of(replace(report, findings=(cause, *report.findings)))
    assert doc.verdict.word == "COLLAPSED"
    assert not any(s.title.startswith("Cause not found") for s in doc.sections)


def test_gaps_fold_and_unfold(reports: dict[str, Report]) -> None:
    report = reports["healthy"]
    hasty = replace(report.outcomes[-1], code="VQ301", reason="the encoder is flat (VQ507)")
    report = replace(report, outcomes=(*report.outcomes, replace(hasty, code="VQ302"), hasty))
    for verbose in (False, True):
        gaps = section(of(report, verbose=verbose), "Not examined")
        assert gaps.folded is not verbose
        (whole,), (short,) = gaps.nodes, gaps.short
        assert isinstance(whole, Items) and isinstance(short, Items)
        assert whole.items[0].text.endswith("check VQ201 vq-loss-too-heavy")
        assert whole.items[1].text.startswith(
            "the encoder is flat (VQ507 encoder-collapsed): checks VQ302, VQ301"
        )
        first, second = short.items
        assert first.text == (
            "3 of 4 checks could not judge: the encoder is flat (VQ507 encoder-collapsed) (2), "
            "other reasons (1)"
        )
        assert second.name == "--data BATCH"


def test_the_decision_over_several_is_the_worst(reports: dict[str, Report]) -> None:
    gated = [reports["gate_passed"], reports["gate_failed"], reports["gate_inconclusive"]]
    docs, decision = documents(gated, RenderOptions())
    assert [doc.gate for doc in docs] == ["pass", "fail", "inconclusive"]
    assert decision is not None and decision.word == "GATE FAILED"
    assert documents([reports["healthy"]], RenderOptions())[1] is None
