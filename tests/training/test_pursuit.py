"""z_e that runs away from its codes in a training is seen, and the codes follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from cured import FIGURES, LAYER
from small_training import Digits

from vqdoctor.capture.error import QuantizationError
from vqdoctor.capture.layer import watching
from vqdoctor.core.retraining import Figures
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.training.pursuit import MOST, RUNS_AWAY, TIGHTER, Pursuit
from vqdoctor.training.trainer import Trainer

Start = Callable[..., Trainer]


def figures(error: float | None) -> Figures:
    return replace(FIGURES, layers={"vq": replace(LAYER, error=error)})


def test_an_error_far_above_its_lowest_is_seen_until_the_encoder_had_its_time() -> None:
    pursuit = Pursuit()
    assert pursuit.left_behind(figures(0.2)) == {}
    assert pursuit.left_behind(figures(0.2 * RUNS_AWAY * 0.99)) == {}
    assert pursuit.left_behind(figures(0.1)) == {}
    for time in range(1, MOST + 1):
        assert pursuit.left_behind(figures(0.4)) == {"vq": pytest.approx(4.0)}
        assert pursuit.tightening == TIGHTER**time
    assert pursuit.left_behind(figures(0.4)) == {}
    again = Pursuit()
    again.load_state_dict(pursuit.state_dict())
    assert again.state_dict() == pursuit.state_dict()


@pytest.mark.parametrize("stop", [None, figures(None)])
def test_without_a_look_at_z_e_nothing_is_said(stop: Figures | None) -> None:
    pursuit = Pursuit()
    assert pursuit.left_behind(stop) == {}
    assert pursuit.left_behind(figures(9.0)) == {}
    assert pursuit.left_behind(stop) == {}


def test_the_error_is_that_of_its_formula(start: Start) -> None:
    trainer, found = start(plan=TrainingPlan(epochs=1)), QuantizationError()
    layer = trainer.layers[0]
    seen: list[np.ndarray] = []
    for batch in list(trainer.splits.in_order())[:3]:
        with watching(trainer.layers) as watched, torch.no_grad():
            trainer.task.losses(trainer.model.eval(), batch)
        found.add(layer, watched)
        (call,) = layer.calls(watched)
        assert call.z_q is not None
        seen.append(np.stack([t.movedim(1, -1).reshape(-1, 8).numpy() for t in (call.z_e, call.z_q)]))
    z_e, z_q = np.concatenate(seen, axis=1).astype(np.float64)
    wanted = ((z_e - z_q) ** 2).sum() / ((z_e - z_e.mean(0)) ** 2).sum()
    assert found.share == pytest.approx(wanted, rel=1e-4)
    assert QuantizationError().share is None


def test_codes_that_stand_still_behind_a_training_encoder_are_placed_anew(start: Start) -> None:
    plan = TrainingPlan(epochs=40, vq_weight=0.1, data_init=True, bypass_epochs=8)
    trainer = start(Digits(decay=0.9999), plan=plan)
    trainer.train_to(20)
    seen = [note for note in trainer.notes if "z_e ran away from the codes of vq (" in note]
    at = int(seen[0].partition(":")[0].removeprefix("epoch "))
    assert plan.bypass_epochs < at < 12
    assert trainer.rows[at].vq_weight == pytest.approx(TIGHTER * trainer.rows[at - 1].vq_weight)
    stop = trainer.rows[-1].stop
    assert stop is not None and (stop.layers["vq"].error or 1.0) < 0.3, "0.89 where the codes stand still"


def test_a_pursuit_is_taken_up_where_it_was(start: Start) -> None:
    plan = TrainingPlan(epochs=40, vq_weight=0.1, data_init=True, bypass_epochs=8)
    whole, begun, resumed = (start(Digits(decay=0.9999), plan=plan) for _ in range(3))
    whole.train_to(12)
    begun.train_to(11)
    assert begun.notes, "it has begun"
    resumed.load_state_dict(begun.state_dict())
    resumed.train_to(12)
    one, other = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert resumed.notes == whole.notes


def test_codes_that_follow_are_left_alone(start: Start) -> None:
    plan = TrainingPlan(epochs=40, vq_weight=0.1, data_init=True, warm_up_epochs=4)
    trainer = start(Digits(decay=0.9), plan=replace(plan, warm_up_epochs=1))
    trainer.train_to(10)
    assert trainer.notes == [] and {row.vq_weight for row in trainer.rows} == {0.1}
