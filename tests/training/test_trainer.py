from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import CPU, Digits, Rivals, reference_layer

from vqdoctor.capture.layer import bypass, watching
from vqdoctor.core.errors import UserError
from vqdoctor.core.retraining import Goals
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.models.guarded_task import GuardedTask
from vqdoctor.models.task import Losses
from vqdoctor.training.ending import PATIENCE, PLATEAU
from vqdoctor.training.resume import load_state, save_state
from vqdoctor.training.splits import Splits
from vqdoctor.training.trainer import Trainer
from vqdoctor.training.treatment import grafts

MIXED_ON = "vqdoctor.training.precision.MIXED_ON"

Start = Callable[..., Trainer]
ALL = TrainingPlan(epochs=6, vq_weight=0.1, warm_up_epochs=3, data_init=True, revive_under=0.1, seed=3)


def tensors(trainer: Trainer) -> dict[str, torch.Tensor]:
    return dict(trainer.model.state_dict())


def same(one: Trainer, other: Trainer) -> bool:
    a, b = tensors(one), tensors(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "plan",
    [
        ALL,
        replace(ALL, linear=True),
        replace(ALL, balanced=True),
        replace(ALL, sound_ema=True),
        replace(ALL, bypass_epochs=3),
        replace(ALL, moment_matching=True),
        replace(ALL, frozen_epochs=3, entropy_weight=0.1),
        replace(ALL, steps=5),
    ],
    ids=str,
)
def test_a_run_taken_up_from_its_file_ends_as_one_that_was_never_interrupted(
    start: Start, tmp_path: Path, plan: TrainingPlan
) -> None:
    whole = start(plan=plan)
    whole.run()
    first = start(plan=plan)
    first.train_to(2)
    save_state({"kind": "vqdoctor-retraining", "trainer": first.state_dict()}, tmp_path / "state")
    second = start(plan=plan)
    torch.rand(7)  # whatever else drew from the random state between
    second.load_state_dict(load_state(tmp_path / "state")["trainer"])
    second.run()
    assert same(whole, second)
    assert whole.rows == second.rows
    assert not same(whole, first)


class Versioned(torch.nn.Module):
    """A module whose state is of a second version: it takes one of the first for half of what is meant."""

    _version = 2

    def __init__(self, inside: torch.nn.Module) -> None:
        super().__init__()
        self.inside = inside
        self.scale = torch.nn.Parameter(torch.ones(1))

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, versions: Any, *more: Any) -> None:
        if versions.get("version", 1) < 2:
            state[f"{prefix}scale"] = state[f"{prefix}scale"] * 2
        super()._load_from_state_dict(state, prefix, versions, *more)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * self.inside(x)


def test_a_module_that_tells_versions_of_its_state_apart_is_taken_up_as_it_was(
    start: Start, tmp_path: Path
) -> None:
    class Task(Digits):
        def model(self) -> torch.nn.Module:
            model = super().model()
            model.encoder = Versioned(model.encoder)
            return model

    first, second = (start(Task(), plan=ALL) for _ in range(2))
    first.train_to(1)
    save_state({"kind": "vqdoctor-retraining", "trainer": first.state_dict()}, tmp_path / "state")
    second.load_state_dict(load_state(tmp_path / "state")["trainer"])
    assert same(first, second)


def test_another_seed_is_another_training(start: Start) -> None:
    one, other = (
        start(plan=replace(ALL, epochs=1)),
        start(plan=replace(ALL, epochs=1, seed=4)),
    )
    one.run()
    other.run()
    assert not same(one, other)


def test_a_loss_that_is_not_finite_once_costs_an_epoch_and_half_the_learning_rate(start: Start) -> None:
    task = Digits(spoil=lambda call: call == 15)
    trainer = start(task, plan=replace(ALL, epochs=3))
    rate = trainer.optimizer.param_groups[0]["lr"]
    trainer.run()
    assert len(trainer.rows) == 3
    assert all(torch.isfinite(t).all() for t in tensors(trainer).values())
    assert trainer.optimizers.rates == [[rate / 2]]
    assert any("half the learning rate" in note for note in trainer.notes)


def test_a_loss_that_stays_not_finite_ends_the_run_with_the_last_good_epoch(start: Start) -> None:
    per_epoch = len(list(Digits().batches("train")))
    trainer = start(Digits(spoil=lambda call: call > per_epoch + 2), plan=replace(ALL, epochs=5))
    with pytest.raises(UserError, match="not finite in epoch 2"):
        trainer.run()
    assert len(trainer.rows) == 1
    assert all(torch.isfinite(t).all() for t in tensors(trainer).values())


def test_parameters_that_are_not_finite_are_no_matter_of_the_learning_rate(start: Start) -> None:
    trainer = start(plan=replace(ALL, epochs=2))
    head: Any = trainer.model.head
    with torch.no_grad():
        head.bias[0] = torch.nan
    with pytest.raises(UserError, match=r"head\.bias holds NaN or infinity"):
        trainer.run()
    assert not any("learning rate" in note for note in trainer.notes)


def test_goals_that_hold_end_the_training_after_a_cool_down(start: Start) -> None:
    easy = Goals(min_perplexity=1.0, min_usage=0.0, min_accuracy=0.0, max_ece=1.0)
    trainer = start(Rising(), plan=replace(ALL, epochs=40), goals=easy)
    trainer.run()
    assert trainer.ending.reason == "goals"
    assert len(trainer.rows) == ALL.warm_up_epochs + PATIENCE + trainer.ending.cool_down


def test_a_training_without_goals_cools_down(start: Start) -> None:
    trainer = start(plan=replace(ALL, epochs=20))
    trainer.run()
    assert len(trainer.rows) == 20 and trainer.ending.reason == "epochs"
    assert trainer.optimizer.param_groups[0]["lr"] < 0.2 * 2e-3


def test_codes_are_revived_up_to_the_cool_down_and_no_longer(start: Start) -> None:
    """Every code under the mean counts as dead here, so that every window has some to revive."""
    trainer = start(plan=replace(ALL, epochs=10, revive_under=1.0))
    trainer.run()
    revived = [row.revived for row in trainer.rows]
    cool_down = trainer.ending.cool_down
    assert min(revived[:-cool_down]) > 0
    assert revived[-cool_down:] == [0] * cool_down


def test_a_training_whose_result_is_an_earlier_epoch_is_the_same_after_an_interruption(
    start: Start, tmp_path: Path
) -> None:
    """No epoch after the third is as good on paper: the cool-down starts from there, and it is the result."""
    hard = Goals(min_perplexity=1.0, min_usage=0.0, max_ece=0.0)
    plan = replace(ALL, epochs=24, vq_weight=0.1)
    tasks = [Rising() for _ in range(4)]
    whole, first, second, short = (start(task, plan=plan, goals=hard) for task in tasks)
    whole.run()
    assert whole.ending.reason == "plateau"
    assert len(whole.rows) == 3 + PLATEAU + whole.ending.cool_down
    first.train_to(3 + PLATEAU + 2)
    assert first.steps / 5 == whole.steps / 3  # the ten epochs between are undone, and then those after them
    save_state({"kind": "vqdoctor-retraining", "trainer": first.state_dict()}, tmp_path / "state")
    second.load_state_dict(load_state(tmp_path / "state")["trainer"])
    tasks[2].looks = tasks[1].looks
    second.run()
    assert same(whole, second)
    assert whole.rows == second.rows
    short.train_to(3)
    assert not same(whole, short)  # a training goes on from its last step, and gives the mean
    short.finish()
    assert same(whole, short)


class Rising(Digits):
    """A task whose loss in eval mode rises from one look to the next."""

    looks = 0

    def losses(self, model: torch.nn.Module, batch: Any) -> Losses:
        found = super().losses(model, batch)
        self.looks += not model.training
        return found if model.training else replace(found, task=found.task * 0 + self.looks)


def test_goals_that_never_hold_train_for_all_epochs(start: Start) -> None:
    trainer = start(plan=ALL, goals=Goals(min_perplexity=32.0, min_usage=1.0, max_ece=0.0))
    trainer.run()
    assert len(trainer.rows) == ALL.epochs
    assert trainer.ending.streak == 0
    assert trainer.ending.reason == "epochs"


def test_the_vq_weight_warms_up(start: Start) -> None:
    trainer = start(plan=replace(ALL, epochs=4))
    trainer.run()
    assert [row.vq_weight for row in trainer.rows] == pytest.approx([0.1 / 3, 0.2 / 3, 0.1, 0.1])


def test_without_vq_the_codebook_is_neither_trained_nor_looked_at(start: Start) -> None:
    trainer = start(plan=replace(ALL, epochs=1), without_vq=True)
    batch = next(iter(trainer.splits.in_order()))
    with torch.no_grad():
        z_e = trainer.model.encoder(batch[0])
        logits = trainer.model.head(trainer.model.features(z_e).mean(dim=(2, 3)))
    trainer.model.eval()
    with torch.no_grad(), watching(trainer.layers, bypass):
        assert torch.allclose(trainer.task.losses(trainer.model, batch).logits, logits, atol=1e-6)


def test_a_model_learns_without_vq_first_and_its_codes_are_placed_in_what_it_learned(start: Start) -> None:
    plan = replace(ALL, bypass_epochs=3)
    warmed, plain = start(plan=plan), start(plan=plan, without_vq=True)
    for trainer in (warmed, plain):
        trainer.train_to(3)
    assert [row.task_loss for row in warmed.rows] == [row.task_loss for row in plain.rows]
    assert [row.vq_weight for row in warmed.rows] == [0.0] * 3
    scattered = warmed.rows[-1].stop
    warmed.run()
    assert warmed.rows[3].vq_weight == pytest.approx(0.1 / 3)
    placed = warmed.rows[-1].stop
    assert scattered is not None and placed is not None
    assert placed.layers["vq"].perplexity > max(16, 2 * scattered.layers["vq"].perplexity)


def test_the_encoder_is_held_in_the_first_epochs_with_vq_and_what_is_behind_it_learns(start: Start) -> None:
    trainer = start(plan=replace(ALL, epochs=5, bypass_epochs=1, frozen_epochs=2))
    encoder, held = [], lambda: trainer.model.encoder[0].weight.detach().clone()
    heads = []
    for epoch in range(1, 5):
        trainer.train_to(epoch)
        encoder.append(held())
        heads.append(trainer.model.head.weight.detach().clone())
    assert torch.equal(encoder[0], encoder[1]) and torch.equal(encoder[1], encoder[2])
    assert not torch.equal(encoder[2], encoder[3])
    assert not any(torch.equal(one, other) for one, other in itertools.pairwise(heads))


def test_the_entropy_term_raises_the_usage_and_is_not_counted_as_task_loss(start: Start) -> None:
    plan = TrainingPlan(epochs=6, vq_weight=0.1, data_init=True)
    usage, first = [], []
    for weight in (0.0, 1.0):
        trainer = start(plan=replace(plan, entropy_weight=weight))
        trainer.run()
        first.append(trainer.rows[0].task_loss)
        figures = trainer.figures()
        assert figures is not None
        usage.append(figures.layers["vq"].perplexity)
    assert usage[1] > 2 * usage[0]
    assert first[1] == pytest.approx(first[0], rel=0.1)


def test_the_graft_gives_the_encoder_the_gradient_that_the_layer_cuts_off() -> None:
    task = Digits(straight_through=False)
    model = task.model()
    layers = (reference_layer(model),)
    batch = next(iter(Splits(task, CPU).in_order()))

    def encoder_gradient(plan: TrainingPlan) -> float:
        model.zero_grad()
        with watching(layers, grafts(plan), keep_graph=True):
            task.losses(model, batch).task.backward()
        gradient = model.encoder[0].weight.grad
        return 0.0 if gradient is None else float(gradient.norm())

    assert encoder_gradient(TrainingPlan()) == 0.0
    assert encoder_gradient(TrainingPlan(estimators={"vq": "straight-through"})) > 0.0
    assert encoder_gradient(TrainingPlan(estimators={"vq": "rotation"})) > 0.0
    assert not model.vq._forward_hooks
    assert not model.vq._forward_pre_hooks


@pytest.mark.parametrize("settings", [{"num_codes": 1}, {"num_codes": 4000}, {"batch_size": 1}], ids=str)
def test_odd_sizes_train(start: Start, settings: dict[str, Any]) -> None:
    """One code; more codes than vectors, in a batch and in all; a batch of one image."""
    trainer = start(Digits(images=60, **settings), plan=replace(ALL, epochs=2))
    trainer.run()
    figures = trainer.figures()
    assert figures is not None
    assert 1.0 <= figures.layers["vq"].perplexity <= figures.layers["vq"].num_codes


def test_a_decay_is_set_where_the_layer_keeps_one(start: Start) -> None:
    trainer = start(plan=replace(ALL, decay=0.9))
    assert trainer.model.vq.decay == 0.9
    assert trainer.notes == []


@pytest.fixture
def mixed_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MIXED_ON, ("cpu",))


@pytest.mark.usefixtures("mixed_on_cpu")
def test_mixed_precision_spares_the_vq_layer_and_outlasts_an_interruption(start: Start) -> None:
    plan = replace(ALL, epochs=3)
    whole = start(plan=plan)
    inside: set[tuple[torch.dtype, bool]] = set()
    average = whole.model.vq.average

    def watched(vectors: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
        inside.add((vectors.dtype, torch.is_autocast_enabled("cpu")))
        return average(vectors, *more)

    whole.model.vq.average = watched
    features: set[torch.dtype] = set()
    hook = whole.model.encoder[0].register_forward_hook(lambda _, __, out: features.add(out.dtype))
    whole.run()
    hook.remove()
    assert whole.mixed
    assert inside == {(torch.float32, False)}
    assert features == {torch.bfloat16, torch.float32}  # trained in the one, measured in the other
    assert {p.dtype for p in whole.model.parameters()} == {torch.float32}
    assert "forward" not in vars(whole.model.vq)
    first, second = start(plan=plan), start(plan=plan)
    first.train_to(1)
    second.load_state_dict(first.state_dict())
    second.run()
    assert second.mixed
    assert same(whole, second)


class Fails(Digits):
    """A task with an operation that bfloat16 does not have."""

    def losses(self, model: torch.nn.Module, batch: Any) -> Losses:
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("binary_cross_entropy is unsafe to autocast\nand more")
        return super().losses(model, batch)


class Blamed(Fails):
    """The same, as the engine tells it of a user's task."""

    def losses(self, model: torch.nn.Module, batch: Any) -> Losses:
        try:
            return super().losses(model, batch)
        except RuntimeError as error:
            raise UserError(f"the task fails on a batch of two: {error}") from error


class Rounds(Digits):
    """A task whose loss is another one in bfloat16."""

    def losses(self, model: torch.nn.Module, batch: Any) -> Losses:
        found = super().losses(model, batch)
        return replace(found, task=found.task * (1.1 if torch.is_autocast_enabled("cpu") else 1.0))


@pytest.mark.usefixtures("mixed_on_cpu")
@pytest.mark.parametrize(
    ("task", "why"),
    [
        (Fails, "the model fails (binary_cross_entropy is unsafe to autocast)"),
        (Blamed, "the model fails (the task fails on a batch of two: binary_cross_entropy"),
        (Rounds, "the task loss is"),
    ],
)
def test_what_bfloat16_breaks_is_trained_in_float32(start: Start, task: type[Digits], why: str) -> None:
    trainer = start(task(), plan=replace(ALL, epochs=1))
    trainer.run()
    assert not trainer.mixed
    (note,) = trainer.notes
    assert note.startswith("trained in float32: in bfloat16")
    assert why in note


def test_a_discriminator_is_trained_by_its_own_optimizer_and_taken_up_again(start: Start) -> None:
    task = GuardedTask(Rivals(), None, None)
    whole, first, second = (start(task, plan=TrainingPlan(epochs=3)) for _ in range(3))  # type: ignore[arg-type]
    before = whole.model.judge.weight.detach().clone()  # type: ignore[union-attr, operator]
    whole.train_to(2)
    assert not torch.equal(whole.model.judge.weight, before)  # type: ignore[arg-type]
    first.train_to(1)
    second.load_state_dict(first.state_dict())
    second.train_to(2)
    assert same(whole, second)
