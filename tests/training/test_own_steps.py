"""A task that trains each batch by itself: its step is taken, and what a plan can do to it is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_vqgan import VQGAN, WEIGHT, GanTask, trained
from torch.nn import functional

from vqdoctor.capture.layer import CapturedLayer, watching
from vqdoctor.capture.reader import Reader
from vqdoctor.core.errors import UserError
from vqdoctor.core.levels import Confidence
from vqdoctor.core.retraining import Goals
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.engine.retrain import retrain
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.models.guarded_task import GuardedTask
from vqdoctor.training.own_steps import (
    OUTSIDE,
    SUMMED,
    UNSEEN,
    UNTOLD,
    against_grafting,
    against_weighing,
    unable,
    weighed,
)
from vqdoctor.training.resume import load_state, save_state
from vqdoctor.training.splits import Splits
from vqdoctor.training.trainer import Trainer

ALL = TrainingPlan(epochs=3, vq_weight=0.1, warm_up_epochs=2, data_init=True, revive_under=0.1, seed=3)


class Few(GanTask):
    """Of each split a few batches."""

    begins = 5

    def batches(self, split: str) -> Any:
        return super().batches(split)[:6]


def guarded(task: GanTask | None = None) -> Any:
    return GuardedTask(task or Few(), None, None)  # type: ignore[arg-type]


def layer_of(model: VQGAN) -> CapturedLayer:
    view = QuantizerView(
        name="vq",
        layout="embedding",
        confidence=Confidence.HIGH,
        num_codes=32,
        dim=8,
        keys={"codebook": "vq.embedding.weight"},
        load_codebook=lambda: model.vq.embedding.weight.detach().numpy(),
    )
    reader = Reader(view=view)
    return CapturedLayer(
        view=view, model=model, tensors=view.keys, reader=reader, path="vq", gap="", maps=True
    )


def fresh() -> VQGAN:
    torch.manual_seed(0)
    return VQGAN().train()


def start(task: Any = None, *, plan: TrainingPlan = ALL, **more: Any) -> Trainer:
    task, model = task or guarded(), fresh()
    splits = Splits(task, torch.device("cpu"))
    return Trainer(model=model, task=task, splits=splits, layers=(layer_of(model),), plan=plan, **more)


def state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(autouse=True)
def _same_randomness() -> Iterator[None]:
    with torch.random.fork_rng():
        yield


def test_the_step_is_the_users_own_to_the_bit() -> None:
    trainer = start(plan=TrainingPlan(epochs=1, vq_weight=WEIGHT))
    trainer.train_to(1)  # as the last step left it, and not the mean
    by_hand, own = fresh(), Few()
    own.optimizer(by_hand)
    for batch in trainer.splits.train(trainer._stretches.seed(0)):
        own.step(by_hand, batch)
    assert same(state(by_hand), state(trainer.model))
    assert not same(state(fresh().judge), state(trainer.model.judge))  # type: ignore[arg-type]
    assert trainer.optimizers.told.endswith("in the task's own step, and 1 more")


@pytest.mark.parametrize("plan", [ALL, replace(ALL, bypass_epochs=1), replace(ALL, sound_ema=True)], ids=str)
def test_a_run_taken_up_ends_as_one_that_was_never_interrupted(plan: TrainingPlan, tmp_path: Path) -> None:
    whole, first, second = start(plan=plan), start(plan=plan), start(plan=plan)
    whole.run()
    first.train_to(1)
    save_state({"kind": "vqdoctor-retraining", "trainer": first.state_dict()}, tmp_path / "state")
    torch.rand(7)
    second.load_state_dict(load_state(tmp_path / "state")["trainer"])
    second.run()
    assert whole.rows == second.rows
    assert same(state(whole.model), state(second.model))
    counted = {"steps": 3 * 6}  # the task's own count: what is examined between does not advance it
    assert whole.state_dict()["left"]["task"] == second.state_dict()["left"]["task"] == counted


def test_trainings_side_by_side_do_not_share_the_task() -> None:
    task = guarded()
    alone = start()
    alone.train_to(2)
    one, other = start(task), start(task, plan=replace(ALL, vq_weight=0.4))
    for epochs in (1, 2):
        one.train_to(epochs)
        other.train_to(epochs)
    assert same(state(one.model), state(alone.model))
    assert not same(state(one.model), state(other.model))


def test_losses_without_a_step_move_nothing_and_have_their_graph() -> None:
    task, model = guarded(), fresh()
    ours, _ = task.optimizer(model)
    before, batch = state(model), next(iter(task.batches("train")))
    losses = task.losses(model, batch)
    assert same(before, state(model))
    assert not ours.state and all(p.grad is None for p in model.parameters())
    assert task.state_of(model) == {"steps": 1}
    out, vq = model(batch)
    wanted = torch.autograd.grad((out - batch).abs().mean() + vq, model.encoder[0].weight)
    torch.testing.assert_close(torch.autograd.grad(losses.task + losses.vq, model.encoder[0].weight), wanted)
    with torch.no_grad():
        found = task.losses(model.eval(), batch)
    assert float(found.task) == float(losses.task.detach()) and not found.task.requires_grad
    task.step(model, batch)
    assert not same(before, state(model)) and ours.state


def pull(change: Any) -> torch.Tensor:
    """The gradient of a step at the encoder's last weight."""
    task, model = guarded(), fresh()
    task.optimizer(model)
    with watching((layer_of(model),), change, keep_graph=True):
        task.step(model, next(iter(task.batches("train"))))
    assert model.encoder[-1].weight.grad is not None
    return model.encoder[-1].weight.grad


def test_the_vq_loss_is_weighed_where_the_layer_returns_it() -> None:
    none, own, double = (pull(weighed(factor)) for factor in (0.0, 1.0, 2.0))
    torch.testing.assert_close(own, pull(None))
    torch.testing.assert_close(double - own, own - none)
    assert float((own - none).norm()) > 0.01 * float(own.norm())


def test_without_vq_its_loss_pulls_at_nothing() -> None:
    trainer = start(without_vq=True, plan=TrainingPlan(epochs=1))
    trainer.run()
    by_hand = fresh()
    own = [p for name, p in by_hand.named_parameters() if name[:2] in ("en", "de")]
    adam = torch.optim.Adam(own, lr=2e-3, betas=(0.5, 0.9))
    for batch in list(trainer.splits.train(trainer._stretches.seed(0)))[:5]:  # until the discriminator counts
        loss = (by_hand.decoder(by_hand.encoder(batch)) - batch).abs().mean()
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(own, 10.0)
        adam.step()
    five = start(without_vq=True, plan=TrainingPlan(epochs=1, steps=5))
    five.train_to(1)
    torch.testing.assert_close(five.model.encoder[0].weight, by_hand.encoder[0].weight)  # type: ignore[index]


def test_what_is_held_stays_and_the_rest_is_trained() -> None:
    trainer = start(plan=replace(ALL, epochs=1, frozen_epochs=1))
    before = state(trainer.model)
    trainer.run()
    after = state(trainer.model)
    moved = {name.partition(".")[0] for name in before if not torch.equal(after[name], before[name])}
    assert moved == {"vq", "decoder", "judge"}


class Unweighed(Few):
    vq_weight = None


class ByHand(Few):
    """A part of its VQ loss does not come from the layer."""

    def step(self, model: VQGAN, x: torch.Tensor) -> Any:
        found = super().step(model, x)
        return {**found, "vq": found["vq"] + model.encoder(x).square().mean()}


class Silent(Few):
    def step(self, model: VQGAN, x: torch.Tensor) -> Any:
        return {"task": super().step(model, x)["task"]}


@pytest.mark.parametrize(
    ("task", "why"), [(Few, ""), (Unweighed, UNTOLD), (ByHand, UNSEEN), (Silent, UNSEEN)]
)
def test_the_weight_is_only_changed_where_all_of_the_vq_loss_is_reached(task: type[Few], why: str) -> None:
    own, model = guarded(task()), fresh()
    batch = next(iter(own.batches("train")))
    assert against_weighing(model, own, batch, (layer_of(model),), 0) == why
    refused = unable(why, "", balanced=False)
    assert refused["entropy-term"] == refused["commitment-term"] == refused["raise-vq-weight"] == SUMMED
    assert refused.get("lower-vq-weight", "") == refused.get("warm-up", "") == why
    assert "data-init" not in refused
    assert unable(why, "", balanced=True)["lower-vq-weight"] == SUMMED


class Beside(Few):
    """The VQ loss is computed outside of the layer, on what it hands on."""

    def step(self, model: VQGAN, x: torch.Tensor) -> Any:
        z_e = model.encoder(x)
        z_q, _, _ = model.vq(z_e)
        vq = functional.mse_loss(z_q, z_e.detach()) + 0.25 * functional.mse_loss(z_e, z_q.detach())
        task = (model.decoder(z_q) - x).abs().mean()
        self.ours.zero_grad()
        (task + vq).backward()
        self.ours.step()
        return {"task": task, "vq": vq}


@pytest.mark.parametrize(("task", "why"), [(Few, ""), (Silent, ""), (Beside, OUTSIDE)])
def test_no_estimator_is_put_before_a_vq_loss_outside_of_the_layer(task: type[Few], why: str) -> None:
    own, model = guarded(task()), fresh()
    batch = next(iter(own.batches("train")))
    assert against_grafting(model, own, batch, (layer_of(model),), 0) == why
    refused = unable("", why, balanced=False)
    assert refused.get("straight-through", "") == refused.get("rotation-trick", "") == why


class Nothing(Few):
    def step(self, model: VQGAN, x: torch.Tensor) -> Any:
        super().step(model, x)


class Number(Few):
    def step(self, model: VQGAN, x: torch.Tensor) -> Any:
        return {"task": super().step(model, x)["task"].item()}


class Unnamed(Few):
    def step(self, model: VQGAN, x: torch.Tensor) -> Any:
        return {"loss": super().step(model, x)["task"]}


class Idle(Few):
    def step(self, model: VQGAN, x: torch.Tensor) -> Any:
        out, vq = model(x)
        return {"task": (out - x).abs().mean(), "vq": vq}


class Elsewhere(Few):
    def step(self, model: VQGAN, x: torch.Tensor) -> Any:
        self.ours = torch.optim.SGD(model.parameters(), lr=0.1)
        return super().step(model, x)


class Outside(Few):
    def optimizer(self, model: VQGAN) -> Any:
        return super().optimizer(model)[0], torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1)


class Other(Few):
    def step(self, model: VQGAN, x: torch.Tensor) -> Any:
        return super().step(VQGAN(), x)


class Fails(Few):
    def step(self, model: VQGAN, x: torch.Tensor) -> Any:
        raise ValueError("no luck")


@pytest.mark.parametrize(
    ("task", "what"),
    [
        (Nothing, r"task\.step\(\) returns a NoneType without the field `task`"),
        (Number, r"task\.step\(\)\.task is a float"),
        (Unnamed, r"task\.step\(\) returns a dict without the field `task`"),
        (Idle, r"took no optimizer step in 6 batches"),
        (Elsewhere, r"uses an optimizer that task\.optimizer\(model\) did not return"),
        (Outside, r"an optimizer of parameters that the model does not have"),
        (Other, r"does not run the model that it is given"),
        (Fails, r"the task fails on a batch of Tensor .*: ValueError: no luck"),
    ],
)
def test_a_step_that_cannot_be_used_is_one_clear_line(task: type[Few], what: str) -> None:
    with pytest.raises(UserError, match=what):
        start(guarded(task()), plan=TrainingPlan(epochs=1)).run()


class Diverges(Few):
    def step(self, model: VQGAN, x: torch.Tensor) -> Any:
        found = super().step(model, x)
        return {**found, "task": found["task"] * (float("nan") if self.steps == 9 else 1.0)}


def test_a_loss_that_is_not_finite_goes_back_an_epoch_at_half_the_rate() -> None:
    class Once(Diverges):
        seen = 0

        def step(self, model: VQGAN, x: torch.Tensor) -> Any:
            found = super().step(model, x)
            Once.seen += self.steps == 9
            return found if Once.seen == 1 else {**found, "task": found["task"].nan_to_num()}

    trainer = start(guarded(Once()), plan=TrainingPlan(epochs=2, vq_weight=WEIGHT))
    trainer.run()
    assert trainer.notes == ["epoch 2: nan at batch 3; again at half the learning rate"]
    assert [one.param_groups[0]["lr"] for one in trainer.optimizers.all] == [1e-3, 5e-4]


def test_a_collapsed_vq_gan_is_cured(tmp_path: Path) -> None:
    sick = trained(tmp_path)
    settings = Settings(epochs=6, warm_up_epochs=1, goals=Goals(max_loss=0.13))
    report = retrain(sick, tmp_path / "well.pt", user_model=UserModel(task=GanTask()), settings=settings)
    done = report.retraining
    assert done is not None and done.before is not None and done.after is not None
    assert done.before.layers["vq"].perplexity < 2 < 6.4 < done.after.layers["vq"].perplexity
    assert done.before.loss > 0.2 and done.cured
    assert {repair.remedy: repair.status for repair in report.repairs}["lower-vq-weight"] == "applied"
    assert any("in the task's own step, and 1 more" in note for note in report.notes)
    files = [torch.load(path, weights_only=True) for path in (sick, tmp_path / "well.pt")]
    weights = [file["model"]["judge.0.weight"] for file in files]
    assert not torch.equal(*weights)  # the discriminator went on too, with the moments of its own optimizer
    steps = [[float(one["state"][0]["step"]) for one in file["optimizer"]] for file in files]
    assert steps[0] == [57.0, 57.0] and steps[1][0] == steps[1][1] == 18.0 * len(done.epochs)
