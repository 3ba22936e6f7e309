"""The VQ loss of a step, with what a training plan adds at the layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_training import Digits, reference_layer
from torch.nn import functional

from vqdoctor.capture.layer import Watched, watching
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.models.task import Losses
from vqdoctor.training.vq_loss import completed

TERM = TrainingPlan(commitment=0.25)


@pytest.fixture
def step() -> tuple[Losses, tuple[Any, ...], Watched]:
    """The losses of one batch, its layers, and what they did."""
    task = Digits()
    torch.manual_seed(0)
    model = task.model()
    layers = (reference_layer(model),)
    with watching(layers, keep_graph=True) as watched:
        found = task.losses(model, next(iter(task.batches("train"))))
    return found, layers, watched


def test_without_a_term_nothing_is_added(step: Any) -> None:
    found, layers, watched = step
    assert completed(found, layers, watched, TrainingPlan()) is found


def test_the_commitment_term_is_that_of_its_formula_and_pulls_at_z_e_alone(step: Any) -> None:
    found, layers, watched = step
    free = replace(found, vq=found.vq * 0)
    losses = completed(free, layers, watched, TERM)
    (call,) = layers[0].calls(watched)
    torch.testing.assert_close(losses.vq, 0.25 * functional.mse_loss(call.z_e, call.z_q))
    (pull,) = torch.autograd.grad(losses.vq, call.z_e, retain_graph=True)
    torch.testing.assert_close(pull, 0.5 * (call.z_e - call.z_q) / call.z_e.numel())


@pytest.mark.parametrize("told", ["none", "detached"])
def test_a_loss_that_the_layer_returns_and_the_task_leaves_out_is_taken(step: Any, told: str) -> None:
    found, layers, watched = step
    (call,) = layers[0].calls(watched)
    assert len(call.losses) == 1
    left_out = replace(found, vq=None if told == "none" else found.vq.detach())
    losses = completed(left_out, layers, watched, TERM)
    torch.testing.assert_close(losses.vq, call.losses[0])
    assert losses.vq.requires_grad
