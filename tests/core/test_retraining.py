from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from cured import FIGURES, LAYER

from vqdoctor.core.codec import decode, encode
from vqdoctor.core.paired import TOLERANCE, Paired
from vqdoctor.core.retraining import Arm, Epoch, Figures, Goals, Retraining
from vqdoctor.core.skill import reachable_loss
from vqdoctor.core.training_plan import TrainingPlan

GOALS = Goals(min_accuracy=0.95)


def layer(**more: float) -> Figures:
    return replace(FIGURES, layers={"vq": replace(LAYER, **more)})


def test_all_goals_are_compared() -> None:
    assert [(g.name, g.met) for g in GOALS.compare(FIGURES)] == [
        ("perplexity", True), ("usage", True), ("accuracy", True), ("ece", True),
    ]  # fmt: skip
    assert GOALS.met(FIGURES)
    assert GOALS.attained(FIGURES) == 1.0


@pytest.mark.parametrize(
    ("figures", "missed"),
    [
        (layer(perplexity=51.1), "perplexity"),
        (layer(active=102), "usage"),
        (replace(FIGURES, accuracy=0.949), "accuracy"),
        (replace(FIGURES, ece=0.051), "ece"),
    ],
)
def test_each_goal_can_be_missed_alone(figures: Figures, missed: str) -> None:
    assert [g.name for g in GOALS.compare(figures) if not g.met] == [missed]
    assert not GOALS.met(figures)
    assert 0.9 < GOALS.attained(figures) < 1.0


def test_a_task_without_labels_must_not_lose_by_the_cure() -> None:
    before = replace(FIGURES, accuracy=None, ece=None, loss=0.0656)
    goals = Goals().no_worse_than(before)
    assert goals.max_loss == 0.0656
    assert goals.met(replace(before, loss=0.0656))
    worse = [g for g in goals.compare(replace(before, loss=102.4)) if not g.met]
    assert [(g.name, g.limit) for g in worse] == [("loss", 0.0656)]
    assert goals.attained(replace(before, loss=102.4)) < 1.0
    assert Goals().no_worse_than(FIGURES) == Goals(), "with labels the accuracy is compared"
    assert Goals(max_loss=3.0).no_worse_than(before).max_loss == 3.0


def test_a_sick_loss_is_no_goal_where_the_model_without_vq_shows_a_better_one() -> None:
    """The worst of the healthy keep four fifths of what z_e is worth to the task."""
    before = replace(FIGURES, accuracy=None, ece=None, loss=0.161)
    assert reachable_loss(0.10, 0.30) == pytest.approx(0.14)
    assert Goals().no_worse_than(before, 0.14).max_loss == 0.14
    assert Goals().no_worse_than(before, 0.20).max_loss == 0.161, "nor may the task lose"
    assert Goals().no_worse_than(replace(before, loss=math.nan), 0.14).max_loss == 0.14
    assert reachable_loss(0.30, 0.10) == 0.30, "a model that uses no z_e leaves nothing to lose"


def test_no_figure_is_no_cure() -> None:
    nothing = Figures(loss=1.0, samples=3, layers={})
    assert not GOALS.met(nothing)
    assert GOALS.attained(nothing) == 0.0


def test_few_codes_are_not_asked_for_more_than_they_are() -> None:
    few = layer(num_codes=32, perplexity=32.0, active=32, expected_active=32.0)
    assert Goals(min_perplexity=50.0).met(few)


def test_where_one_code_stands_out_the_others_are_asked_for_the_perplexity() -> None:
    """Padding takes 81 % of the vectors: no codebook has a perplexity of 51 then."""
    layer = replace(LAYER, perplexity=4.1, rest_perplexity=190.0)
    goal = Goals().compare(replace(FIGURES, layers={"vq": layer}))[0]
    assert (goal.name, goal.value, goal.met) == ("perplexity", 190.0, True)
    poor = replace(layer, rest_perplexity=40.0)
    assert not Goals().compare(replace(FIGURES, layers={"vq": poor}))[0].met
    asked = Goals(min_perplexity=30.0).compare(replace(FIGURES, layers={"vq": layer}))[0]
    assert (asked.value, asked.met) == (4.1, False), "a limit of the user's own is of the whole usage"
    even = replace(LAYER, rest_perplexity=199.0)  # the whole is enough: it is what is quoted
    assert Goals().compare(replace(FIGURES, layers={"vq": even}))[0].value == LAYER.perplexity


def test_a_small_sample_is_not_blamed_for_codes_that_it_cannot_show() -> None:
    small = layer(vectors=256, active=150, expected_active=162.0)
    assert small.layers["vq"].active_share == pytest.approx(150 / 162)


@pytest.mark.parametrize(
    ("gained", "lost", "low", "high", "met"),
    [
        (20, 28, -0.064, 0.017, True),  # 2.4 points behind, and the interval reaches 1.5
        (0, 8, -0.043, -0.016, False),  # 2.4 points behind, beyond doubt
        (20, 31, -0.074, 0.009, False),  # 3.3 points behind: no doubt excuses so much
    ],
)
def test_an_accuracy_is_judged_by_its_pairs(
    gained: int, lost: int, low: float, high: float, met: bool
) -> None:
    paired = Paired(samples=335, gained=gained, lost=lost, low=low, high=high)
    without = replace(FIGURES, accuracy=0.85)
    after = replace(FIGURES, accuracy=0.85 + paired.difference)
    goals = Goals().beside(without, TOLERANCE)
    by_itself, judged = (
        next(goal for goal in goals.compare(after, given) if goal.name == "accuracy")
        for given in (None, paired)
    )
    assert not by_itself.met
    assert (judged.met, judged.limit, judged.paired) == (met, pytest.approx(0.835), paired)


@pytest.mark.parametrize(
    ("accuracy", "asked", "met"), [(0.18, None, False), (0.2, None, True), (0.18, 0.15, True)]
)
def test_a_model_at_chance_is_no_cure_though_it_is_as_bad_without_vq(
    accuracy: float, asked: float | None, met: bool
) -> None:
    """Labels of other samples: 0.146 without VQ and by a guess. A goal that the user sets is kept."""
    without = replace(FIGURES, accuracy=0.146, chance=0.146)
    paired = Paired(samples=500, gained=40, lost=22, low=0.0, high=0.07) if asked is None else None
    goals = Goals(min_accuracy=asked).beside(without, TOLERANCE)
    (goal,) = (g for g in goals.compare(replace(without, accuracy=accuracy), paired) if g.name == "accuracy")
    assert goal.met == (goal.value >= goal.limit) == met


def test_pairs_never_make_a_good_accuracy_a_missed_one() -> None:
    paired = Paired(samples=20, gained=0, lost=0, low=-0.09, high=0.09)
    goal = next(g for g in GOALS.compare(FIGURES, paired) if g.name == "accuracy")
    assert goal.met


@pytest.mark.parametrize(
    ("without", "asked", "limit"), [(0.09, None, 0.09), (0.02, None, 0.05), (0.09, 0.03, 0.03)]
)
def test_the_calibration_need_not_be_better_than_without_vq(
    without: float, asked: float | None, limit: float
) -> None:
    goals = Goals(max_ece=asked).beside(replace(FIGURES, ece=without), TOLERANCE)
    assert next(g.limit for g in goals.compare(FIGURES) if g.name == "ece") == limit


@pytest.mark.parametrize(
    ("without", "value", "low", "met"),
    [
        (0.098, 0.100, -0.02, True),  # the samples do not tell the two apart
        (0.098, 0.100, 0.001, False),  # they do
        (0.098, 0.120, -0.02, False),  # 2.2 points more: no doubt excuses so much
        (0.03, 0.052, -0.02, False),  # 0.05 is a limit by itself, and nothing is compared
    ],
)
def test_a_calibration_is_judged_by_its_pairs(without: float, value: float, low: float, met: bool) -> None:
    paired = Paired(samples=335, gained=9, lost=9, low=-0.02, high=0.02, ece_low=low, ece_high=0.03)
    goals = Goals().beside(replace(FIGURES, ece=without), TOLERANCE)
    after = replace(FIGURES, ece=value)
    assert next(goal.met for goal in goals.compare(after, paired) if goal.name == "ece") == met
    assert not next(goal.met for goal in goals.compare(after) if goal.name == "ece")


@pytest.mark.parametrize(
    ("gained", "lost", "low", "high", "behind"),
    [
        (9, 9, -0.02, 0.02, False),
        (20, 31, -0.074, 0.009, False),  # 3.3 points fewer, which chance may do
        (0, 8, -0.043, -0.004, True),
        (31, 20, -0.009, 0.074, False),
    ],
)
def test_an_accuracy_that_fell_is_judged_by_its_pairs(
    gained: int, lost: int, low: float, high: float, behind: bool
) -> None:
    assert Paired(samples=335, gained=gained, lost=lost, low=low, high=high).behind is behind


def test_a_model_that_does_its_task_worse_is_not_cured() -> None:
    met = GOALS.compare(FIGURES)
    done = Retraining(plan=TrainingPlan(), epochs=(), before=FIGURES, after=FIGURES, goals=met)
    assert done.cured and not done.needless
    assert not replace(done, worse=True).cured


def test_where_all_goals_held_and_nothing_was_trained_nothing_is_cured() -> None:
    held, missed = GOALS.compare(FIGURES), GOALS.compare(layer(perplexity=1.0))
    done = Retraining(plan=TrainingPlan(), epochs=(), before=FIGURES, after=None, goals=held, ended="source")
    assert done.needless and not done.cured
    assert not replace(done, goals=missed).needless


def test_a_retraining_survives_json() -> None:
    done = Retraining(
        plan=TrainingPlan(estimators={"vq": "straight-through"}),
        epochs=(
            Epoch(epoch=1, task_loss=1.0, vq_loss=None, vq_weight=0.1, revived=3, stop=FIGURES),
            Epoch(epoch=2, task_loss=0.5, vq_loss=0.2, vq_weight=0.1, revived=0, stop=None),
        ),
        before=layer(perplexity=1.0),
        after=FIGURES,
        goals=GOALS.compare(FIGURES, Paired(samples=397, gained=3, lost=5, low=-0.02, high=0.01)),
        trial=(Arm(name="the plan", remedies=("data-init",), epochs=5, figures=FIGURES, chosen=True),),
    )
    again = decode(Retraining, json.loads(json.dumps(encode(done), allow_nan=False)), "retraining")
    assert again == done
    assert again.cured
