"""What a retraining did, as the formats for people show it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from vqdoctor.core.finding import Finding
from vqdoctor.core.levels import Confidence, Severity, Stage
from vqdoctor.core.paired import Paired
from vqdoctor.core.report import PlanStep, Repair, Report
from vqdoctor.core.retraining import (
    Arm,
    Epoch,
    Figures,
    Goal,
    Goals,
    LayerFigures,
    Price,
    Retraining,
    SourceChange,
)
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.render import RenderOptions, renderer_of

FORMATS = ("rich", "markdown")


def figures(layer: str, perplexity: float, accuracy: float) -> Figures:
    usage = LayerFigures(
        num_codes=1_024, vectors=9_000, used=900, active=800, expected_active=1_000.0, perplexity=perplexity
    )
    return Figures(loss=0.25, samples=397, accuracy=accuracy, ece=0.01, layers={layer: usage})


def retrained(report: Report, layer: str = "vq", *, met: bool = True) -> Report:
    after = figures(layer, 700.0 if met else 3.5, 0.97)
    done = Retraining(
        plan=TrainingPlan(),
        epochs=(),
        before=figures(layer, 1.0, 0.1),
        after=after,
        without_vq=figures(layer, 1.0, 0.98),
        goals=(
            Goal(name="perplexity", layer=layer, value=700.0 if met else 3.5, limit=204.8, met=met),
            Goal(name="ece", layer=None, value=0.01, limit=0.05, met=True),
        ),
        trial=(
            Arm(name=f"the plan of {layer}", remedies=(), epochs=3, figures=after, chosen=True),
            Arm(
                name="the plan with entropy-term",
                remedies=("entropy-term",),
                epochs=3,
                figures=after,
                price=Price(epochs=3, loss=0.0125, accuracy=-0.004, perplexity=12.0),
            ),
        ),
        source=(SourceChange(why=f"{layer} has no estimator", code="z_q = z_e + (z_q - z_e).detach()"),),
        seconds=79.0,
    )
    repairs = (Repair(remedy="data-init", status="applied", reason=layer, before={"active": 1.0}),)
    return replace(report, retraining=done, repairs=repairs)


@pytest.mark.parametrize(("result", "told"), [(1, True), (3, False), (None, False)])
def test_the_epoch_that_is_the_result_is_told_where_others_came_after_it(
    reports: dict[str, Report], result: int | None, told: bool
) -> None:
    report = retrained(reports["healthy"])
    assert report.retraining is not None
    rows = tuple(Epoch(epoch=i, task_loss=1, vq_loss=1, vq_weight=1, revived=0, stop=None) for i in (1, 2, 3))
    done = replace(report.retraining, epochs=rows, result=result, ended="plateau")
    text = " ".join(shown(replace(report, retraining=done), "markdown").split())
    assert ("fell no further, and epoch 1 of 3 is the result" in text) is told
    assert ("is the result" in text) is told


def shown(report: Report, format: str, **options: bool) -> str:
    return renderer_of(format).render(report, RenderOptions(width=100, **options))


@pytest.mark.parametrize("format", FORMATS)
def test_figures_trial_remedies_and_what_is_left(reports: dict[str, Report], format: str) -> None:
    text = shown(retrained(reports["healthy"]), format)
    assert "CURED: all 2 goals met after 0 epochs in 1 min 19 s" in text
    for part in ("1 of 1,024", "700 of 1,024", "at least 204.8", "the plan of vq (chosen)", "data-init"):
        assert part in text
    assert "measured on 397 samples of the val split; the same model without VQ, trained as long:" in text
    assert text.index("your source is as it was".upper() if format == "rich" else "your source is") < (
        text.rindex("z_q = z_e + (z_q - z_e).detach()")
    )
    price = "against the plan after 3 epochs: perplexity +12.0, accuracy -0.4 points, task loss +0.0125"
    assert price in " ".join(text.split()).replace("\\", "")
    assert "codes active" not in text, "the figures of a remedy are those of the whole retraining"


def test_a_code_that_stands_out_has_a_row_of_its_own(reports: dict[str, Report]) -> None:
    """The goal stands beside the figure that it is compared with."""
    report = retrained(reports["healthy"])
    assert report.retraining is not None and report.retraining.after is not None
    usage = replace(report.retraining.after.layers["vq"], perplexity=4.25, rest_perplexity=301.0)
    after = replace(report.retraining.after, layers={"vq": usage})
    done = replace(report.retraining, after=after, goals=Goals().compare(after))
    rows = shown(replace(report, retraining=done), "rich").splitlines()
    whole = next(row for row in rows if row.startswith("  perplexity"))
    rest = next(row for row in rows if row.startswith("  without the one that stands out"))
    assert "4.25 of 1,024" in whole and "at least" not in whole
    assert "301 of 1,024" in rest and "at least 204.8" in rest
    assert "that stands out" not in shown(report, "rich")


def test_a_retraining_that_goes_on_from_the_model_without_vq_says_so(reports: dict[str, Report]) -> None:
    """That one was trained for fewer epochs then: "as long" is not true."""
    report = retrained(reports["healthy"])
    assert report.retraining is not None
    done = replace(report.retraining, plan=TrainingPlan(start="without-vq", epochs=40))
    text = " ".join(shown(replace(report, retraining=done), "rich").split())
    assert "without VQ, trained for 40 epochs before this training went on from it: accuracy 0.980" in text


CAUSE = Finding(
    code="VQ101",
    name="straight-through-missing",
    stage=Stage.GRADIENT,
    severity=Severity.ERROR,
    confidence=Confidence.HIGH,
    layer="vq",
    message="The estimator is missing.",
    remedies=("straight-through",),
)


@pytest.mark.parametrize("format", FORMATS)
def test_a_cured_model_whose_source_is_as_it_was_is_told_as_one_story(
    reports: dict[str, Report], format: str
) -> None:
    step = PlanStep(step=1, remedy="straight-through", codes=("VQ101",), how="Let the gradient pass.")
    report = replace(retrained(reports["healthy"]), findings=(CAUSE,), plan=(step,), verdict="at-risk")
    assert report.retraining is not None
    change = replace(report.retraining.source[0], codes=("VQ101",))
    one = replace(report, retraining=replace(report.retraining, source=(change,)))
    told, without = shown(one, format), shown(report, format)
    assert (
        "AT RISK" not in told and "LEFT IN YOUR SOURCE" in told and "in the order to try" not in told.lower()
    )
    assert "AT RISK" in without and "in the order to try" in without.lower()
    other = replace(CAUSE, code="VQ502", name="dead-codes", remedies=())
    assert "AT RISK" in shown(replace(one, findings=(CAUSE, other)), format)


def test_a_model_that_does_its_task_worse_is_told_with_the_way_to_keep_it(reports: dict[str, Report]) -> None:
    report = retrained(reports["healthy"])
    assert report.retraining is not None
    lost = replace(report.retraining, before=figures("vq", 9.0, 0.981), worse=True, written=False, source=())
    first = " ".join(shown(replace(report, retraining=lost), "markdown").split()).replace("\\", "")
    assert (
        "NOT CURED: 0 epochs in 1 min 19 s; it does its task worse than before (accuracy 0.981 → 0.970) and"
        in first
    )
    assert "was not written: --resume --keep-worse writes it" in first
    kept = shown(replace(report, retraining=replace(lost, written=True)), "rich")
    assert "but was written, as asked" in " ".join(kept.split())


@pytest.mark.parametrize("format", FORMATS)
def test_an_accuracy_is_shown_with_its_paired_interval(reports: dict[str, Report], format: str) -> None:
    report = retrained(reports["healthy"])
    assert report.retraining is not None
    paired = Paired(samples=397, gained=10, lost=18, low=-0.046, high=0.006)
    goal = Goal(name="accuracy", layer=None, value=0.96, limit=0.965, met=True, paired=paired)
    ece = Goal(name="ece", layer=None, value=0.1, limit=0.098, met=True)
    done = replace(report.retraining, goals=(goal, ece))
    text = " ".join(shown(replace(report, retraining=done), format).split())
    assert "at most 0.098, within the paired interval" in text
    assert "difference -2.0 points (95 % interval -4.6 to +0.6, paired)" in text.replace("\\", "")
    assert "at least 0.965, within the paired interval" in text


def test_a_cure_with_a_finding_left_is_one_story(reports: dict[str, Report]) -> None:
    left = replace(retrained(reports["collapsed"]), verdict="at-risk")
    lines = shown(left, "rich").splitlines()
    assert lines[0].startswith("CURED, BUT AT RISK: all 2 goals met")
    assert lines[1].startswith("AT RISK")
    last = [line.partition(":")[0] for line in lines if line.startswith(("CURED", "AT RISK"))][2:]
    assert last == ["CURED, BUT AT RISK", "AT RISK"], "the next step stands last"
    assert shown(retrained(reports["healthy"]), "rich").startswith("CURED: ")


def test_a_missed_goal_is_named(reports: dict[str, Report]) -> None:
    first = shown(retrained(reports["healthy"], met=False), "rich").splitlines()[0]
    assert first == "NOT CURED: 0 epochs in 1 min 19 s; missed: perplexity of vq 3.5, wanted at least 204.8"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("ascii", [False, True])
def test_a_hostile_layer_obeys_nobody(
    reports: dict[str, Report], hostile_text: str, format: str, ascii: bool
) -> None:
    text = shown(retrained(reports["healthy"], hostile_text, met=False), format, ascii=ascii)
    assert not any(c in text for c in "\x1b\x9b\u202e\x07\r") and r"\x1b[2J" in text.replace("\\\\", "\\")
    assert text.isascii() or not ascii
    if format == "markdown":
        html = MarkdownIt("commonmark").enable("table").render(text)
        assert "<script>" not in html and "<h1>head" not in html


def test_a_cause_that_no_training_reaches_is_told_though_all_goals_hold(reports: dict[str, Report]) -> None:
    report = retrained(reports["healthy"])
    assert report.retraining is not None
    needless = replace(report.retraining, after=None, epochs=(), ended="nothing", source=(), trial=())
    step = PlanStep(step=1, remedy="straight-through", codes=("VQ101",), how="Let the gradient pass.")
    sick = replace(report, findings=(CAUSE,), plan=(step,), verdict="at-risk", retraining=needless)
    told = " ".join(shown(sick, "rich").split())
    assert told.startswith(
        "NOTHING TO CURE BY TRAINING: no retraining reaches VQ101; the plan is yours to do: straight-through"
    )
    well = " ".join(shown(replace(report, retraining=needless), "rich").split())
    assert well.startswith("NOTHING TO CURE: all 2 goals held before; no finding asks for a training")


def test_a_guess_stands_beside_the_accuracy(reports: dict[str, Report]) -> None:
    report = retrained(reports["healthy"])
    assert report.retraining is not None and report.retraining.after is not None
    after = replace(report.retraining.after, chance=0.126)
    goal = Goal(name="accuracy", layer=None, value=0.13, limit=0.169, met=False)
    done = replace(report.retraining, after=after, without_vq=replace(after, accuracy=0.101), goals=(goal,))
    told = " ".join(shown(replace(report, retraining=done), "rich").split())
    assert told.startswith("NOT CURED: ") and "accuracy 0.130, wanted at least 0.169" in told
    assert "accuracy 0.101, a guess 0.126" in told
