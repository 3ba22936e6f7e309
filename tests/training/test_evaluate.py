"""A model's figures on a split: labels that are missing, and events that are rare."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from cured import FIGURES
from small_training import Digits

from vqdoctor.capture.layer import passes
from vqdoctor.capture.observe import Scored
from vqdoctor.core.retraining import Goals
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.metrics.calibration import balanced_skill
from vqdoctor.models.task import Losses
from vqdoctor.training.evaluate import Measured, _figures, has_learned, is_worse
from vqdoctor.training.trainer import Trainer


def scored(*labels: int) -> Scored:
    logits = torch.eye(3)[torch.arange(len(labels)) % 3]
    return Scored.of(Losses(task=torch.tensor(1.0), logits=logits, labels=torch.tensor(labels)), logits)


def test_samples_without_a_label_have_no_accuracy() -> None:
    whole = Scored.join([scored(0, -100, 2), scored(-100, -100, -100), scored(0, 255, 0)])
    assert (whole.samples, whole.labels.tolist()) == (9, [0, 2, 0, 0])  # type: ignore[union-attr]
    assert whole.logits is not None and whole.logits.argmax(1).tolist() == [0, 2, 0, 2]
    none = Scored.join([scored(-100, -100)])
    assert none.labels is None and none.logits is None and none.samples == 2


def of(logits: torch.Tensor, labels: torch.Tensor) -> Scored:
    return Scored.of(Losses(task=torch.tensor(1.0), logits=logits, labels=labels), logits)


def test_labels_of_other_forms_are_read_or_left_out() -> None:
    three = torch.eye(3)
    for labels in (torch.tensor([[0], [1], [2]]), three, 0.2 + 0.4 * three, torch.tensor([0.0, 1.0, 2.0])):
        assert of(three, labels).labels.tolist() == [0, 1, 2]  # type: ignore[union-attr]
    binary = of(torch.tensor([[-1.0], [2.0], [3.0]]), torch.tensor([0.0, 1.0, 1.0]))
    assert binary.logits is not None and binary.logits.argmax(1).tolist() == [0, 1, 1]
    for logits, labels in (
        (three, torch.tensor([0, 1])),
        (three[:, :1], torch.tensor([0.1, 0.4, 3.0])),
        (three, 1 - three),
    ):
        assert of(logits, labels).labels is None and of(logits, labels).logits is None


def rare(scores: str, loss: float) -> Measured:
    """A classifier of an event that has 60 of 2,000 samples."""
    draw = np.random.default_rng(0)
    labels = (np.arange(2_000) < 60).astype(np.int64)
    given = {
        "finds it": np.where(draw.random(2_000) < 0.12, 1 - labels, labels),
        "the frequent class": np.zeros(2_000, dtype=int),
        "a coin": draw.integers(0, 2, 2_000),
    }[scores]
    logits = np.eye(2, dtype=np.float32)[given] * 0.8
    right = given == labels
    skill = balanced_skill(logits, labels)
    found = replace(FIGURES, loss=loss, accuracy=float(right.mean()), chance=0.97, balanced_skill=skill)
    return Measured(figures=found, right=right, logits=logits, labels=labels)


@pytest.mark.parametrize(
    ("scores", "learned"), [("finds it", True), ("the frequent class", False), ("a coin", False)]
)
def test_a_rare_event_is_learned_where_each_class_counts_alike(scores: str, learned: bool) -> None:
    model = rare(scores, 0.4)
    assert model.figures.accuracy is not None and model.figures.accuracy <= 0.97
    assert has_learned(model, 0.7) is learned and model.figures.has_learned is learned


def test_a_model_that_finds_the_event_is_no_worse_than_one_that_guesses_the_frequent_class() -> None:
    guesses, finds = rare("the frequent class", 0.69), rare("finds it", 0.4)
    assert not is_worse(finds, guesses) and is_worse(guesses, finds)
    heavier = replace(finds, figures=replace(finds.figures, loss=0.7))
    assert not is_worse(heavier, guesses) and is_worse(guesses, heavier)
    assert is_worse(replace(finds, figures=replace(finds.figures, loss=math.nan)), guesses)
    (goal,) = (g for g in Goals(min_accuracy=0.85).compare(finds.figures) if g.name == "accuracy")
    assert goal.met


def test_the_usage_beside_a_code_that_stands_out_is_that_of_the_others() -> None:
    """Padding on one code of 64: the others are used evenly, and each of them is active."""
    counts = np.arange(64) % 5 + 28.0
    counts[5] = 9_000.0
    padded = _figures(counts, 64, None)
    assert padded.perplexity < 6 and padded.rest_perplexity == pytest.approx(63.0, rel=0.01)
    assert padded.active == 64 and padded.active_share > 0.99
    even = _figures(np.full(64, 30.0), 64, None)
    assert even.rest_perplexity is None and even.perplexity == pytest.approx(64.0, rel=0.01)


class Masked(Digits):
    """The right half of each image is padding."""

    def losses(self, model: torch.nn.Module, batch: Any) -> Losses:
        found = super().losses(model, batch)
        mask = torch.zeros(len(batch[0]), 4, 4)
        mask[:, :, :2] = 1
        return replace(found, mask=mask)


def test_padding_is_left_out_of_usage_and_of_the_codes_start(start: Callable[..., Trainer]) -> None:
    """The figures before and after counted padding, which `inspect` left out."""
    whole, masked = (start(task(), plan=TrainingPlan(epochs=1)).figures() for task in (Digits, Masked))
    assert whole is not None and masked is not None
    assert masked.layers["vq"].vectors * 2 == whole.layers["vq"].vectors
    trainer = start(Masked(), plan=TrainingPlan(epochs=1))
    (layer,), task = trainer.layers, trainer.task
    batch = next(iter(trainer.splits.in_order()))
    _, losses, watched = next(passes(trainer.model, task, (batch,), trainer.layers))
    vectors = layer.vectors(watched)
    assert vectors is not None and losses.mask is not None
    kept = layer.only_data(vectors, watched, losses.mask)
    assert torch.equal(kept, vectors.view(-1, 4, 4, vectors.shape[1])[:, :, :2].flatten(0, 2))
    assert layer.only_data(vectors, watched, None) is vectors
