"""The better one of two models without VQ, and what it shows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cured import FIGURES

from vqdoctor.core.codec import decode, encode
from vqdoctor.core.retraining import Goals
from vqdoctor.training.evaluate import Measured
from vqdoctor.training.without_vq import Candidate, WithoutVQ


def model(loss: float) -> Measured:
    return Measured(figures=replace(FIGURES, loss=loss, accuracy=None, ece=None), right=None)


def candidate(loss: float, one: float = 2.0) -> Candidate:
    return Candidate(val=model(loss), one=model(one), stop=model(loss).figures)


def compared(trained: float, bypassed: float, with_codes: float, *, settled: bool) -> WithoutVQ:
    return WithoutVQ.of(candidate(trained), candidate(bypassed), model(with_codes), settled=settled)


def test_a_sick_checkpoint_is_left_behind_by_the_model_that_learned_without_vq() -> None:
    found = compared(0.1, 1.9, 1.8, settled=False)
    assert found.is_better and not (found.bypassed or found.too_short or found.unlearned)
    assert found.val is not None and found.val.loss == 0.1
    assert found.least_loss == pytest.approx(0.1 + 0.2 * 1.9)
    assert decode(WithoutVQ, encode(found), "state") == found


@pytest.mark.parametrize("settled", [False, True])
def test_a_sound_encoder_behind_a_wrecked_codebook_is_kept_and_sets_the_goal(settled: bool) -> None:
    """It was given up for a new model that 320 samples had taught less, and a loss of 1.2 was a cure."""
    found = compared(0.9, 0.35, 1.8, settled=settled)
    assert found.bypassed and not found.is_better and not found.too_short
    assert found.val is not None and found.val.loss == 0.35
    assert found.least_loss == pytest.approx(0.35 + 0.2 * 1.65)


def test_a_model_that_is_still_learning_and_behind_the_checkpoint_sets_no_goal() -> None:
    found = compared(0.9, 1.0, 0.5, settled=False)
    assert found.too_short and found.is_better is None
    given = Goals()
    assert found.goals(given, 0.015) == given and found.least_loss == float("inf")
    assert not compared(0.9, 1.0, 0.5, settled=True).too_short


def test_a_model_at_a_guess_sets_no_goal_until_it_has_settled() -> None:
    short, long = (compared(2.0, 2.5, 2.4, settled=settled) for settled in (False, True))
    assert short.too_short and not short.unlearned
    assert long.unlearned and not long.too_short


def test_a_loss_that_is_not_finite_shows_nothing() -> None:
    nan, inf = float("nan"), float("inf")
    assert compared(inf, nan, 0.5, settled=True) == WithoutVQ()
    assert compared(inf, 0.4, 0.5, settled=True).bypassed
