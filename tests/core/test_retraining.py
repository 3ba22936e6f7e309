from __future__ import annotations

import json
from dataclasses import replace

import pytest
from cured import FIGURES, LAYER

from vqdoctor.core.codec import decode, encode
from vqdoctor.core.retraining import Arm, Epoch, Figures, Goals, Retraining
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


def test_no_figure_is_no_cure() -> None:
    nothing = Figures(loss=1.0, samples=3, layers={})
    assert not GOALS.met(nothing)
    assert GOALS.attained(nothing) == 0.0


def test_few_codes_are_not_asked_for_more_than_they_are() -> None:
    few = layer(num_codes=32, perplexity=32.0, active=32, expected_active=32.0)
    assert Goals(min_perplexity=50.0).met(few)


def test_a_small_sample_is_not_blamed_for_codes_that_it_cannot_show() -> None:
    small = layer(vectors=256, active=150, expected_active=162.0)
    assert small.layers["vq"].active_share == pytest.approx(150 / 162)


def test_a_retraining_survives_json() -> None:
    done = Retraining(
        plan=TrainingPlan(estimators={"vq": "straight-through"}),
        epochs=(
            Epoch(epoch=1, task_loss=1.0, vq_loss=None, vq_weight=0.1, revived=3, stop=FIGURES),
            Epoch(epoch=2, task_loss=0.5, vq_loss=0.2, vq_weight=0.1, revived=0, stop=None),
        ),
        before=layer(perplexity=1.0),
        after=FIGURES,
        goals=GOALS.compare(FIGURES),
        trial=(Arm(name="the plan", remedies=("data-init",), epochs=5, figures=FIGURES, chosen=True),),
    )
    again = decode(Retraining, json.loads(json.dumps(encode(done), allow_nan=False)), "retraining")
    assert again == done
    assert again.cured
