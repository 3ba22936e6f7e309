"""What a fix did, as the formats for people show it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from vqdoctor.core.report import DRY_RUN, NOT_WRITTEN, Change, Repair, Report
from vqdoctor.render import RenderOptions, all_renderers

FORMATS = ("rich", "markdown")
APPLIED = Repair(
    remedy="revive-dead-codes",
    status="applied",
    layer="vq",
    before={"dead": 865.0, "perplexity": 137.34, "accuracy": 0.9748},
    after={"perplexity": 914.2, "accuracy": 0.9798},
    changes=(
        Change(
            key="model.vq.embedding", what="865 of 1,024 codes", before={"largest": 8.3}, after={"largest": 9}
        ),
        Change(key="model.vq.flag", what="a flag"),
    ),
)
SKIPPED = Repair(remedy="straight-through", status="skipped", reason="a file alone cannot take it")


def shown(report: Report, format: str, **options: bool) -> str:
    return all_renderers()[format].render(report, RenderOptions(width=100, **options))


@pytest.mark.parametrize("format", FORMATS)
def test_before_and_after_of_every_tensor(reports: dict[str, Report], format: str) -> None:
    text = shown(replace(reports["healthy"], repairs=(APPLIED, SKIPPED)), format)
    text = re.sub(r"[`\\*]", "", " ".join(text.split()))
    for part in (
        "FIX: applied revive-dead-codes",
        "model.vq.embedding",
        "865 of 1,024 codes; largest 8.3 → 9",
        "model.vq.flag",
        "skipped",
        "a file alone cannot take it",
    ):
        assert part in text
    assert re.search(r"perplexity:? 137.3 → 914.2", text) and re.search(r"accuracy:? 97.5 % → 98.0 %", text)
    assert re.search(r"dead codes:? 865 → \?", text)  # nobody measured it afterwards


@pytest.mark.parametrize("format", FORMATS)
def test_a_dry_run_claims_nothing(reports: dict[str, Report], format: str) -> None:
    report = replace(reports["healthy"], repairs=(APPLIED,), notes=(DRY_RUN,))
    text = shown(report, format)
    assert "would apply" in text and "to apply" in text and "applied" not in text


@pytest.mark.parametrize(
    ("repairs", "note", "says"),
    [
        ((), DRY_RUN, "FIX: there is nothing to repair in this file"),
        ((), NOT_WRITTEN, "FIX: there is nothing to repair in this file"),
        ((SKIPPED,), DRY_RUN, "FIX: nothing in this file can be repaired as it is"),
        (
            (SKIPPED, replace(SKIPPED, reason="it takes training; --retrain applies it")),
            NOT_WRITTEN,
            "FIX: nothing in this file can be repaired as it is; vqdoctor fix --retrain does more",
        ),
        (
            (replace(SKIPPED, reason="it changes trained weights: add --unsafe-fixes, or --retrain"),),
            DRY_RUN,
            "FIX: nothing in this file can be repaired as it is; vqdoctor fix --unsafe-fixes does more",
        ),
    ],
)
def test_a_fix_that_repairs_nothing_says_so_first(
    reports: dict[str, Report], repairs: tuple[Repair, ...], note: str, says: str
) -> None:
    report = replace(reports["collapsed"], repairs=repairs, notes=(note,))
    assert shown(report, "rich").splitlines()[0] == says


@pytest.mark.parametrize("format", FORMATS)
def test_an_inspection_shows_no_repairs(reports: dict[str, Report], format: str) -> None:
    assert "FIX:" not in shown(reports["healthy"], format)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("ascii", [False, True])
def test_keys_of_a_hostile_file_obey_nobody(
    reports: dict[str, Report], hostile_text: str, format: str, ascii: bool
) -> None:
    repair = Repair(
        remedy="revive-dead-codes",
        status="applied",
        reason=hostile_text,
        layer=hostile_text,
        changes=(Change(key=hostile_text, what=hostile_text, before={hostile_text: 1.0}),),
        before={hostile_text: 1.0},
    )
    text = shown(replace(reports["healthy"], repairs=(repair,)), format, ascii=ascii)
    assert not any(c in text for c in "\x1b\x9b\u202e\x07\r") and r"\x1b[2J" in text.replace("\\\\", "\\")
    if ascii:
        assert text.isascii()
    if format == "markdown":
        html = MarkdownIt("commonmark").enable("table").render(text)
        assert "<script>" not in html and "<h1>head" not in html
