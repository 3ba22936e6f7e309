"""Every picture: from the report alone, the same bytes each time, harmless, and with its table."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from vqdoctor.core.evidence import (
    Course,
    Evidence,
    GradientProfile,
    LevelUse,
    LossBalance,
    PositionUse,
    PrincipalPlane,
    Usage,
)
from vqdoctor.core.picture import FAINT, INK, PAPER, Picture
from vqdoctor.core.report import LayerSummary, Repair, Report
from vqdoctor.core.retraining import Epoch, Figures, Goals, LayerFigures, Retraining
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.plots import MOST_LAYERS, all_plots, pictures
from vqdoctor.plots._plot import BLUE, GREEN, PURPLE, VERMILLION, WIDTH
from vqdoctor.plots.retraining import _drawings, draw

OKABE_ITO = {"#0072b2", "#d55e00", "#009e73", "#cc79a7"}
HOSTILE = "<script>alert(1)</script>$x^{$&\x1b[2J\u202e"
KINDS: tuple[type[Evidence], ...] = (
    Usage, PrincipalPlane, LossBalance, PositionUse, Course, LevelUse,
)  # fmt: skip
QUANTILES = tuple(float(i * i) for i in range(33))


def report(*names: str, **changes: object) -> Report:
    """Return a report with the healthy evidence of every kind that is drawn, on each of the layers."""
    layers = tuple(
        LayerSummary(name=name, layout="reference", layout_confidence="high", num_codes=256, dim=64)
        for name in names or ("vq",)
    )
    on_layers = [kind.healthy(layer=layer.name) for layer in layers for kind in KINDS]
    evidence = [e.replace(count_quantiles=QUANTILES) if isinstance(e, Usage) else e for e in on_layers]
    values: dict[str, object] = {
        "version": "0.1.0", "checkpoint": None, "layers": layers, "findings": (), "plan": (),
        "evidence": (*evidence, GradientProfile.HEALTHY), "unavailable": (), "outcomes": (),
        "verdict": "healthy",
    }  # fmt: skip
    return Report(**{**values, **changes})  # type: ignore[arg-type]


def figures(perplexity: float, name: str = "vq") -> Figures:
    layer = LayerFigures(
        num_codes=256, vectors=7000, used=200, active=190, expected_active=256.0, perplexity=perplexity,
        quantiles=QUANTILES,
    )  # fmt: skip
    return Figures(loss=0.4, samples=300, accuracy=0.9, ece=0.03, layers={name: layer})


def retraining(name: str = "vq") -> Retraining:
    epochs = tuple(
        Epoch(
            epoch=i, task_loss=1 / i, vq_loss=0.2 / i, vq_weight=0.1, revived=0, stop=figures(40.0 * i, name)
        )
        for i in (1, 2, 3)
    )
    return Retraining(
        plan=TrainingPlan(epochs=3), epochs=epochs, before=figures(1.0, name), after=figures(120.0, name),
        without_vq=figures(1.0, name),
    )  # fmt: skip


def repaired(name: str = "vq") -> tuple[Repair, ...]:
    figures = {"dead": 200.0, "perplexity": 12.0}, {"dead": 0.0, "perplexity": 180.0}
    return (
        Repair(remedy="revive-dead-codes", status="applied", layer=name, before=figures[0], after=figures[1]),
    )


def whole(*names: str) -> Report:
    first = (names or ("vq",))[0]
    return report(*names, retraining=retraining(first), repairs=repaired(first))


@pytest.fixture(scope="module")
def drawn() -> tuple[Picture, ...]:
    return pictures(whole("vq.0"), png=True) + pictures(report("vq.0", "vq.1"))[1:2]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without matplotlib the tables alone are made."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def numbers(picture: Picture) -> Iterator[float]:
    yield from (cell for row in picture.rows for cell in row if isinstance(cell, int | float))


def test_every_kind_of_picture_is_drawn_from_its_evidence(drawn: tuple[Picture, ...]) -> None:
    shown = {picture.name for picture in drawn}
    missing = [plot.name for plot in all_plots() if not any(name.startswith(plot.name) for name in shown)]
    assert missing == [], "a new picture needs its evidence in `whole`"
    assert [p.name for p in drawn if p.gap or not p.svg] == []
    assert all(p.png.startswith(b"\x89PNG") for p in drawn[:-1])
    assert pictures(report(evidence=())) == ()


def test_a_table_with_named_columns_stands_behind_every_picture(drawn: tuple[Picture, ...]) -> None:
    for picture in drawn:
        assert picture.rows and picture.title and picture.caption.endswith("."), picture.name
        assert {len(row) for row in picture.rows} == {len(picture.head)}, picture.name


def test_pictures_are_the_same_bytes_each_time(drawn: tuple[Picture, ...]) -> None:
    again = pictures(whole("vq.0"), png=True)
    assert again == drawn[: len(again)]


def test_a_picture_is_well_formed_loads_nothing_and_holds_text(drawn: tuple[Picture, ...]) -> None:
    for picture in drawn:
        root = ElementTree.fromstring(picture.svg)
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert "text" in tags and not tags & {"image", "script", "a", "foreignObject", "metadata", "date"}, (
            picture.name
        )
        links = re.findall(r'(?:href="|url\()([^")]*)', picture.svg)
        assert all(link.startswith("#") for link in links), picture.name
        assert float(root.attrib["width"].removesuffix("pt")) <= 72 * WIDTH + 1


def test_its_colours_are_told_apart_by_the_colour_blind(drawn: tuple[Picture, ...]) -> None:
    assert {color.lower() for color in (BLUE, GREEN, PURPLE, VERMILLION)} == OKABE_ITO
    for picture in drawn:
        if picture.name != "positions":  # a scale of one lightness to the next
            used = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", picture.svg))
            assert used <= OKABE_ITO | {INK, FAINT, PAPER}, picture.name


def test_what_a_strangers_file_chose_stays_text() -> None:
    profile = GradientProfile.healthy(modules=(HOSTILE,) * 5)
    layers = [e for e in report(HOSTILE).evidence if e.layer]
    found = pictures(replace(whole(HOSTILE), evidence=(*layers, profile)))
    assert [picture.name for picture in found if picture.gap] == []
    text = "".join(picture.svg for picture in found)
    for picture in found:
        ElementTree.fromstring(picture.svg)
    assert "&lt;script" in text or "…" in text
    assert "<script" not in text and "\x1b" not in text and "\u202e" not in text


def test_a_saved_report_with_uneven_or_absurd_numbers_leaves_a_gap_at_most() -> None:
    for kind, changes in (
        (PrincipalPlane, {"code_x": (1e308, -1e308, 0.0), "code_y": (1.0,), "vector_x": ()}),
        (PositionUse, {"shares": (0.1,)}),
        (Course, {"perplexity": (1e308, 1.0), "z_e_norm": ()}),
        (GradientProfile, {"task": (1e308,), "vq": (1e-308,)}),
        (LossBalance, {"task_gradient": 1e308, "vq_gradient": 0.0}),
        (Usage, {"count_quantiles": (0.0, 1e308), "perplexity_low": 300.0, "max_share": 1e308}),
    ):
        layer = None if kind is GradientProfile else "vq"
        given = kind.healthy(layer=layer).replace(**changes)
        for picture in pictures(report(evidence=(given,))):
            assert bool(picture.svg) != bool(picture.gap), picture.name


@pytest.mark.parametrize(("result", "marked"), [(2, True), (3, False), (None, False)])
def test_the_epoch_that_is_the_result_is_marked_where_others_came_after_it(
    result: int | None, marked: bool
) -> None:
    done = replace(whole("vq"), retraining=replace(retraining(), result=result))
    shown = [p for p in pictures(done) if p.name.startswith("retraining")]
    assert [">result<" in p.svg for p in shown] == [marked and "by epoch" in p.title for p in shown]
    assert any("accuracy" in p.name for p in shown)


def test_dead_codes_are_marked_by_the_limit_of_the_usage() -> None:
    plane = PrincipalPlane.healthy(code_use=(3.0, 0.9, 0.1, 0.0))
    (picture,) = pictures(report(evidence=(plane,)))
    assert "dead codes (2)" in picture.svg and "codes in use (2)" in picture.svg
    (unknown,) = pictures(report(evidence=(plane.replace(code_use=()),)))
    assert "dead" not in unknown.svg and "is unknown" in unknown.caption


@pytest.mark.usefixtures("undrawn")
def test_the_usage_table_is_in_multiples_of_the_uniform_share() -> None:
    usage = Usage.healthy(num_codes=4, max_share=0.5, histogram=(2.0, 4.0, 1.0, 1.0))
    picture = next(p for p in pictures(report(evidence=(usage,))) if p.name == "usage")
    assert [row[1] for row in picture.rows] == [2.0, 1.0, 0.5, 0.5]


@pytest.mark.usefixtures("undrawn")
def test_of_many_layers_those_with_findings_have_pictures_of_their_own() -> None:
    names = [f"rvq.{i}" for i in range(2 * MOST_LAYERS)]
    shown = dict.fromkeys(picture.layer for picture in pictures(report(*names)))
    assert list(shown) == [None, *names[:MOST_LAYERS]]
    beside = next(p for p in pictures(report(*names)) if p.name == "levels")
    assert [row[0] for row in beside.rows] == names


@pytest.mark.usefixtures("undrawn")
def test_without_matplotlib_the_tables_are_left_and_say_how_to_get_pictures(
    drawn: tuple[Picture, ...],
) -> None:
    found = pictures(whole("vq.0"))
    assert [(p.name, p.rows) for p in found] == [(p.name, p.rows) for p in drawn[: len(found)]]
    assert {p.svg for p in found} == {""}
    assert {p.gap for p in found} == {
        "drawing needs matplotlib, which is not installed here: pip install 'vqdoctor[plots]'"
    }


def test_a_retraining_is_one_png_as_well() -> None:
    assert draw(retraining()).startswith(b"\x89PNG")


def test_each_of_two_layers_has_its_goal_in_the_picture_of_a_retraining() -> None:
    """One line of the first layer's goal stood for both, and no word said whose usage was drawn."""
    one = retraining()
    layers = {name: replace(one.after.layers["vq"], num_codes=k) for name, k in (("t", 64), ("b", 128))}  # type: ignore[union-attr]
    after = replace(one.after, layers=layers)  # type: ignore[type-var]
    epochs = tuple(replace(row, stop=replace(row.stop, layers=layers)) for row in one.epochs)  # type: ignore[type-var]
    both = replace(one, before=after, after=after, epochs=epochs, goals=Goals().compare(after))  # type: ignore[arg-type]
    found = list(_drawings(both))
    heads = " ".join(found[1].head)
    assert "t: goal" in heads and "b: goal" in heads and "of t before" in found[0].title
    same = replace(both, goals=Goals(min_perplexity=9.0).compare(after))  # type: ignore[arg-type]
    assert "t: goal" not in " ".join(list(_drawings(same))[1].head)
