from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_training import CPU, Digits
from torch.nn import functional

from vqdoctor.capture.call import Call
from vqdoctor.capture.layer import CapturedLayer, watching
from vqdoctor.capture.reader import Reader
from vqdoctor.core.levels import Confidence
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.models.task import Losses
from vqdoctor.training.evaluate import evaluate
from vqdoctor.training.sound_ema import SoundEMA, takes_directions
from vqdoctor.training.splits import Splits
from vqdoctor.training.trainer import Trainer
from vqdoctor.training.vq_loss import completed
from vqdoctor.vq.ema import divisor

Start = Callable[..., Trainer]
SUMS = {"unnormalised": "ema_cluster_sum", "sphere": "ema_embed_sum"}
PLAN = TrainingPlan(epochs=3, vq_weight=0.1, data_init=True, sound_ema=True)


def layer_of(model: torch.nn.Module, kind: str) -> CapturedLayer:
    vq = model.get_submodule("vq")
    roles = {"codebook": "embedding", "counts": "ema_cluster_size", "sums": SUMS[kind]}
    view = QuantizerView(
        name="vq",
        layout="by hand",
        confidence=Confidence.HIGH,
        num_codes=32,
        dim=8,
        keys={role: f"vq.{name}" for role, name in roles.items()},
        smoothing=1e-5,
        load_codebook=lambda: np.asarray(vq.embedding),
    )
    return CapturedLayer(
        view=view, model=model, tensors=view.keys, reader=Reader(view=view), path="vq", gap="", maps=True
    )


def patient(kind: str, plan: TrainingPlan = PLAN) -> Trainer:
    """The training of one of the two layers that write wrong codes."""
    task = Digits(quantizer=kind)
    model = task.model()
    return Trainer(
        model=model, task=task, splits=Splits(task, CPU), layers=(layer_of(model, kind),), plan=plan
    )


@pytest.mark.parametrize(("kind", "directions"), [("unnormalised", True), ("sphere", False)])
def test_a_layer_that_takes_directions_is_told_from_one_that_takes_vectors(
    kind: str, directions: bool
) -> None:
    """Also where one code takes all vectors, and nothing of the codebook is changed by the look."""
    trainer = patient(kind)
    (layer,) = trainer.layers
    layer.write(torch.arange(32), torch.full((32, 8), 30.0))
    layer.write(torch.tensor([0]), torch.zeros(1, 8))
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    batch = next(iter(trainer.splits.in_order()))
    found = takes_directions(trainer.model, trainer.task, batch, trainer.layers)
    assert found == (trainer.layers if directions else ())
    assert all(torch.equal(before[name], now) for name, now in trainer.model.state_dict().items())


def test_a_layer_that_cannot_be_called_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mimi's codebook is used through methods alone: its module has no forward."""

    def no_forward(*_: object) -> Call:
        raise NotImplementedError("the module is missing the required forward function")

    trainer = patient("unnormalised")
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    monkeypatch.setattr(Call, "again", no_forward)
    batch = next(iter(trainer.splits.in_order()))
    assert takes_directions(trainer.model, trainer.task, batch, trainer.layers) == ()
    assert all(torch.equal(before[name], now) for name, now in trainer.model.state_dict().items())


@pytest.mark.parametrize("kind", SUMS)
def test_a_step_leaves_what_the_rule_gives(kind: str) -> None:
    trainer = patient(kind)
    (layer,), decay = trainer.layers, 0.9
    counts = torch.arange(32.0)
    layer.write(torch.arange(32), torch.randn(32, 8), counts)
    codes = layer.codes()
    taken = SoundEMA.of(layer, decay)
    taken.before_step()
    trainer.model.train()
    with trainer.codebooks.reshaped(full_precision=False), watching(trainer.layers) as watched:
        trainer.task.losses(trainer.model, next(iter(trainer.splits.in_order())))
    (call,) = layer.calls(watched)
    z = call.z_e.movedim(1, -1).reshape(-1, 8)
    if kind == "unnormalised":
        z = functional.normalize(z, dim=1)
    chosen = torch.cdist(z, codes).argmin(1)
    assert not torch.allclose(layer.codes(), codes)
    taken.after_step(watched)
    one_hot = functional.one_hot(chosen, 32).float()
    new_counts = decay * counts + (1 - decay) * one_hot.sum(0)
    sums = decay * codes * divisor(counts, 1e-5)[:, None] + (1 - decay) * one_hot.T @ z
    stored = layer.codebook
    assert stored.counts is not None and stored.sums is not None
    torch.testing.assert_close(stored.counts, new_counts)
    torch.testing.assert_close(stored.sums, sums, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(layer.codes(), sums / divisor(new_counts, 1e-5)[:, None], atol=1e-4, rtol=1e-4)


def test_on_a_sound_layer_nothing_changes(start: Start) -> None:
    """The layer's own rule is the very rule that is written."""
    own, taken = (start(plan=replace(PLAN, sound_ema=sound)) for sound in (False, True))
    for trainer in (own, taken):
        trainer.train_to(1)
    ours, theirs = taken.model.state_dict(), own.model.state_dict()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("kind", "stands_in"), [("unnormalised", False), ("sphere", True)])
def test_a_commitment_loss_stands_in_for_one_without_a_gradient(kind: str, stands_in: bool) -> None:
    trainer = patient(kind)
    with watching(trainer.layers, keep_graph=True) as watched:
        found = trainer.task.losses(trainer.model, next(iter(trainer.splits.in_order())))
    assert found.vq is not None and found.vq.requires_grad is not stands_in
    losses = completed(found, trainer.layers, watched, TrainingPlan(sound_ema=True))
    assert (losses is not found) is stands_in
    (call,) = trainer.layers[0].calls(watched)
    assert losses.vq is not None and call.z_q is not None
    (pull,) = torch.autograd.grad(losses.vq, call.z_e)
    assert float(pull.norm()) > 0
    if stands_in:
        torch.testing.assert_close(losses.vq, (call.z_e - call.z_q).square().mean())
        again = completed(Losses(task=found.task), trainer.layers, watched, TrainingPlan(sound_ema=True))
        assert again.vq is not None and again.vq.requires_grad


@pytest.mark.parametrize("kind", SUMS)
def test_the_unchanged_model_reaches_what_was_measured(kind: str) -> None:
    trainer = patient(kind, replace(PLAN, epochs=10, revive_under=0.1))
    trainer.run()
    unchanged = Digits(quantizer=kind).model()
    unchanged.load_state_dict(trainer.model.state_dict(), strict=True)
    measured = trainer.figures()
    found = evaluate(unchanged, trainer.task, trainer.splits.val(), (layer_of(unchanged, kind),))
    assert measured is not None and found is not None
    assert found.accuracy == measured.accuracy
    assert found.layers["vq"].perplexity == pytest.approx(measured.layers["vq"].perplexity, rel=1e-3)
    assert found.layers["vq"].perplexity > 8
