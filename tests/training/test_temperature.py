"""The temperature of a trained classifier, put into the layer that its class scores come from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from small_training import Digits

from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.metrics.calibration import temperature_of
from vqdoctor.models.task import Losses
from vqdoctor.training.evaluate import Measured
from vqdoctor.training.temperature import COSTS, IN_DOUBT, NO_FIT, NO_SCORES, NO_SPLIT, calibrate
from vqdoctor.training.trainer import Trainer

SURE = 4.0
"""The temperature at which the small model is put: it is that much too sure of itself."""


class LogSoftmax(Digits):
    """A model whose class scores are log probabilities."""

    def losses(self, model: torch.nn.Module, batch: Any) -> Losses:
        found = super().losses(model, batch)
        assert found.logits is not None
        return replace(found, logits=found.logits.log_softmax(1))


class OneLogit(Digits):
    """Large digits against small ones, by a single logit."""

    def model(self) -> Any:
        model = super().model()
        model.head = torch.nn.Linear(model.head.in_features, 1)
        return model

    def losses(self, model: torch.nn.Module, batch: Any) -> Losses:
        output, large = model(batch[0]), batch[1] > 4
        task = torch.nn.functional.binary_cross_entropy_with_logits(output["logits"][:, 0], large.float())
        return Losses(task=task, vq=output["vq_loss"]["vq"], logits=output["logits"], labels=large.long())


class HeldByTheScores(Digits):
    """A task whose loss in eval mode asks for large class scores, whatever they say."""

    def losses(self, model: torch.nn.Module, batch: Any) -> Losses:
        found = super().losses(model, batch)
        assert found.logits is not None
        return replace(found, task=found.task - (0.0 if model.training else 1.0) * found.logits.abs().mean())


class Normalised(Digits):
    """Class scores of a fixed length, which no weights scale."""

    def losses(self, model: torch.nn.Module, batch: Any) -> Losses:
        found = super().losses(model, batch)
        assert found.logits is not None
        return replace(found, logits=20 * torch.nn.functional.normalize(found.logits, dim=1))


class Shifted(Digits):
    """Class scores with a term beside the layer: dividing that layer gives other answers."""

    def losses(self, model: torch.nn.Module, batch: Any) -> Losses:
        found = super().losses(model, batch)
        assert found.logits is not None
        return replace(found, logits=found.logits + 10 * torch.arange(10) / 10)


class Noisy(Digits):
    """A task that draws at random whenever it is asked."""

    def losses(self, model: torch.nn.Module, batch: Any) -> Losses:
        x, *rest = batch
        return super().losses(model, (x + 0.1 * torch.randn_like(x), *rest))


class Masked(Digits):
    """A class that is ruled out by an infinite score."""

    def losses(self, model: torch.nn.Module, batch: Any) -> Losses:
        found = super().losses(model, batch)
        assert found.logits is not None
        return replace(found, logits=torch.where(torch.arange(10) == 9, -torch.inf, found.logits))


class AllRight(Digits):
    """Labels that are what the model says, so that no temperature is the best one."""

    def losses(self, model: torch.nn.Module, batch: Any) -> Losses:
        found = super().losses(model, batch)
        assert found.logits is not None
        return replace(found, labels=found.labels if model.training else found.logits.argmax(1))


class WithoutStop(Digits):
    """No split to stop by, and too few train batches for any to be held back."""

    def batches(self, split: str) -> Any:
        return [] if split == "stop" else list(super().batches(split))[:5]


class Unlabelled(Digits):
    """A task without class scores."""

    def losses(self, model: torch.nn.Module, batch: Any) -> Losses:
        return replace(super().losses(model, batch), logits=None, labels=None)


@pytest.fixture
def trained(start: Callable[..., Trainer]) -> Callable[[type[Digits]], Trainer]:
    """Return a trained small model that is too sure of itself by `SURE`."""

    def trained(task: type[Digits]) -> Trainer:
        trainer = start(task(images=1797), plan=TrainingPlan(epochs=12, vq_weight=0.1))
        trainer.run()
        torch.manual_seed(0)  # as `calibrate` draws, for a plan of seed 0
        stop, factor, head = trainer.measure("stop"), SURE, cast("Any", trainer.model).head
        if stop is not None and stop.logits is not None and stop.labels is not None and task is not AllRight:
            factor /= temperature_of(stop.logits, stop.labels)
        with torch.no_grad():
            head.weight.mul_(factor)
            head.bias.mul_(factor)
        return trainer

    return trained


def seen(trainer: Trainer) -> Measured | None:
    """Return the figures on val, of a task that draws at random with the same draws each time."""
    torch.manual_seed(0)
    return trainer.measure()


@pytest.mark.parametrize(("task", "left"), [(Digits, 0.5), (LogSoftmax, 0.5), (Noisy, 0.5), (OneLogit, 1.0)])
def test_a_model_that_is_too_sure_is_as_sure_as_it_is_right(
    task: type[Digits], left: float, trained: Callable[..., Trainer]
) -> None:
    """Of the model of two classes, right 19 times in 20, chance makes most of the error that is left."""
    trainer = trained(task)
    before, weights = seen(trainer), copy.deepcopy(trainer.model.state_dict())
    assert calibrate(trainer) == ""
    after, changed = seen(trainer), trainer.model.state_dict()
    assert before is not None and after is not None and before.logits is not None
    assert after.logits is not None and before.figures.ece is not None and after.figures.ece is not None
    assert (after.logits.argmax(1) == before.logits.argmax(1)).all()  # no answer is another one
    assert before.labels is not None and after.figures.ece < left * before.figures.ece
    fitting, fitted = (temperature_of(of.logits, before.labels) for of in (before, after))  # to val
    assert 1 / 2 < fitted < 2 < fitting
    assert after.figures.loss < before.figures.loss
    moved = {name for name in weights if not torch.equal(weights[name], changed[name])}
    assert moved == {"head.weight", "head.bias"}
    factors = (weights["head.weight"] / changed["head.weight"]).numpy()
    assert np.allclose(factors, SURE, rtol=1e-3)
    (note,) = [note for note in trainer.notes if note.startswith("calibrate")]
    assert "divided by 4, in the parameters of head" in note
    assert calibrate(trainer) == IN_DOUBT  # a second time there is nothing left to do


@pytest.mark.parametrize(
    ("task", "why"),
    [
        (HeldByTheScores, COSTS),
        (Normalised, "no layer was found"),
        (Shifted, "no layer was found"),
        (Unlabelled, NO_SCORES),
        (Masked, NO_SCORES),
        (AllRight, NO_FIT),
        (WithoutStop, NO_SPLIT),
    ],
)
def test_what_cannot_be_calibrated_stays_as_it_is(
    task: type[Digits], why: str, trained: Callable[..., Trainer]
) -> None:
    trainer = trained(task)
    weights = copy.deepcopy(trainer.model.state_dict())
    assert calibrate(trainer).startswith(why)
    now = trainer.model.state_dict()
    assert all(torch.equal(weights[name], now[name]) for name in weights)
    assert not any("calibrate" in note for note in trainer.notes)
