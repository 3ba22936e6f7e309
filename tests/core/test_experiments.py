"""What the numbers of the experiments say, on hand-made evidence."""

from __future__ import annotations

from typing import Any

import pytest

from vqdoctor.core.evidence import NOT_FINITE, Experiments
from vqdoctor.core.experiments import REMOVALS, Effect, effects

PLACED = ("codes-from-data",)


def one(name: str = "lighter-vq-loss", **changes: Any) -> Experiments:
    """One experiment that took the loss from 0.92 to 0.31, where it came to 0.88 without the change."""
    alone: dict[str, Any] = {
        "names": (name,), "changes": ("the VQ loss at weight 10 in place of 100",), "runs": (2,),
        "loss_before": 0.92, "loss_unchanged": 0.88, "loss": (0.31,), "gain": (0.65,), "spread": (0.02,),
        "placed": (False,), "loss_without": (0.88,), "perplexity_without": (3.1,),
        "perplexity_before": 3.0, "perplexity_unchanged": 3.1, "perplexity": (3.3,),
        "perplexity_factor": (1.06,), "error": (), "error_unchanged": None, "chance": (0.01, 0.02),
    }  # fmt: skip
    return Experiments.healthy(**(alone | changes))


def told(item: Experiments) -> Effect:
    (effect,) = effects([item], "vq")
    return effect


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "helps"),
        ({"spread": (0.3,)}, "nothing"),  # the batches disagree
        ({"gain": (0.06,)}, "nothing"),  # a second run of the same gives as much
        ({"gain": (0.0,)}, "nothing"),  # two runs of two signs
        ({"loss": (0.9,)}, "nothing"),  # only less bad than a training that runs away
        ({"gain": (-0.4,)}, "harms"),
        ({"gain": (-0.4,), "spread": (0.2,)}, "nothing"),
        ({"names": PLACED, "gain": (0.0,), "perplexity_factor": (2.4,)}, "helps"),
        ({"names": PLACED, "gain": (0.0,), "perplexity_factor": (1.6,)}, "nothing"),
        ({"names": PLACED, "gain": (0.0,), "perplexity_factor": (2.4,), "chance": (0.1, 0.5)}, "nothing"),
        ({"names": PLACED, "gain": (-0.4,), "perplexity_factor": (30.0,)}, "harms"),  # and the task is lost
        ({"gain": (0.0,), "perplexity_factor": (2.4,)}, "nothing"),  # a slow training keeps its codes longer
    ],
)
def test_an_effect_counts_beyond_its_own_spread(changes: dict[str, Any], verdict: str) -> None:
    assert told(one(**changes)).verdict == verdict


def test_codes_of_a_model_without_vq_are_no_effect() -> None:
    bypassed = one("without-vq", gain=(0.0,), perplexity_factor=(9.0,))
    assert told(bypassed).verdict == "nothing"
    assert "perplexity" not in told(bypassed).told


def test_the_sentence_has_both_arms_and_the_start() -> None:
    assert told(one()).told == (
        "after 32 training steps with the VQ loss at weight 10 in place of 100 the task loss is 0.31, and "
        "0.88 without that change (0.92 before); the perplexity is 3.3, and 3.1 without"
    )
    assert told(one(placed=(True,))).told.startswith("on codes placed by k-means, after 32 training steps")
    lost = one(loss_without=(NOT_FINITE,), gain=(1.0,), spread=(0.0,))
    assert "and not finite without that change" in told(lost).told
    assert told(lost).helps


def test_each_layer_is_told_of_its_own_codes() -> None:
    (name,) = PLACED
    many = [one(name, layer="a", gain=(0.0,), perplexity_factor=(3.0,)), one(name, layer="b", gain=(0.0,))]
    assert [effects(many, layer)[0].helps for layer in ("a", "b", None)] == [True, False, True]
    assert effects(many, "c") == ()


def test_an_experiment_of_a_later_version_is_passed_over() -> None:
    assert effects([one("of-a-later-version")], "vq") == ()


def test_a_model_without_a_fault_is_helped_by_no_change_of_its_training() -> None:
    found = effects([Experiments.HEALTHY], "vq")
    assert [e.removal.name for e in found if e.helps] == ["without-vq"]
    assert {e.removal.name for e in found} <= REMOVALS.keys()
