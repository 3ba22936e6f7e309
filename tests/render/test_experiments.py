"""The section of the experiments: each with its verdict, and one conclusion where something is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vqdoctor.core.evidence import Experiments, Unavailable
from vqdoctor.core.experiments import MORE_BATCHES
from vqdoctor.core.report import Report
from vqdoctor.render._document import Item, Items, Section
from vqdoctor.render._experiments import NONE_HELPED, PLACED, USED_AGAIN, section


def items(told: Section) -> list[Item]:
    (listed,) = told.nodes
    assert isinstance(listed, Items)
    return list(listed.items)


def told(report: Report, **changes: Any) -> Section:
    return section(replace(report, evidence=(*report.evidence, Experiments.healthy(**changes))))


def test_the_helpful_ones_come_first_each_with_its_figures(reports: dict[str, Report]) -> None:
    losses, gains = (0.0116, 0.0151, 0.0179, 0.0061, 0.005), (0.041, -0.25, -0.48, 0.5, 0.59)
    shown = told(reports["unexplained"], loss=losses, gain=gains, left_out=("shuffled-samples: why",))
    assert shown.title == "Experiments: 32 training steps each, on copies of the model"
    assert [(item.label, item.name) for item in items(shown)] == [
        ("unchanged", ""), ("helps", "without-vq"), ("helps", "lower-rate"),
        ("no clear effect", "codes-from-data"), ("harms", "lighter-vq-loss"), ("harms", "heavier-vq-loss"),
        ("not possible", ""), ("not needed", ""),
    ]  # fmt: skip
    assert items(shown)[-1].text.startswith("straight-through, higher-rate, faster-ema, ")
    assert items(shown)[0].text == "task loss 0.0135 before and 0.0121 after, perplexity 114 and 113"
    assert items(shown)[2].text == "a tenth of the learning rate: task loss 0.0061, perplexity 115"


@pytest.mark.parametrize(
    ("changes", "conclusion"),
    [
        ({}, NONE_HELPED),
        ({"loss": (0.006, 0.0151, 0.0179, 0.0128, 0.005), "gain": (0.5, -0.25, -0.48, -0.06, 0.59)}, PLACED),
        ({"perplexity_factor": (3.0, 0.97, 0.87, 1.01, 0.94)}, USED_AGAIN),
        ({"loss": (0.0116, 0.006, 0.0179, 0.0128, 0.005), "gain": (0.04, 0.5, -0.48, -0.06, 0.59)}, None),
    ],
)
def test_one_conclusion(changes: dict[str, Any], conclusion: str | None, reports: dict[str, Report]) -> None:
    last = items(told(reports["unexplained"], **changes))[-1]
    assert (last.text if last.label == "in short" else None) == conclusion
    assert "in short" not in [item.label for item in items(told(reports["healthy"], **changes))]


def test_without_experiments_only_a_want_of_batches_is_told(reports: dict[str, Report]) -> None:
    report = reports["unexplained"]
    assert section(report).nodes == ()

    def lacking(hint: str) -> Report:
        gap = Unavailable(kind="experiments", layer="vq", source="batch", reason="2 batches", hint=hint)
        return replace(report, unavailable=(gap,))

    assert section(lacking("--decide")).nodes == ()
    assert [item.text for item in items(section(lacking(MORE_BATCHES)))] == ["2 batches; smaller batches"]
