"""Batches of a fixed order are mixed sample by sample, where the task does not mind."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_training import CPU, Digits
from torch.nn import functional

from vqdoctor.core.errors import UserError
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.models.task import Losses
from vqdoctor.training import mixing
from vqdoctor.training.mixing import is_in_order, is_of_samples, redrawn
from vqdoctor.training.norms import let_statistics_follow
from vqdoctor.training.splits import Splits, Stretches
from vqdoctor.training.trainer import Trainer

Start = Callable[..., Trainer]


def pairs(*sizes: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches whose second tensor is ten times the first."""
    numbers = torch.arange(sum(sizes)).split(sizes)
    return [(n.float(), 10 * n) for n in numbers]


def drawn(batches: Any, seed: int = 0) -> list[Any]:
    return list(redrawn(batches, torch.Generator().manual_seed(seed)))


def test_samples_are_drawn_into_batches_of_the_same_sizes_and_stay_whole() -> None:
    found = drawn(pairs(4, 4, 4, 3))
    assert [len(x) for x, _ in found] == [4, 4, 4, 3]
    assert all(torch.equal(10 * x, y.float()) for x, y in found)
    assert sorted(torch.cat([x for x, _ in found]).tolist()) == list(range(15))
    assert any(
        set(x.tolist()) != set(given.tolist())
        for (x, _), (given, _) in zip(found, pairs(4, 4, 4, 3), strict=True)
    )
    again = drawn(pairs(4, 4, 4, 3))
    assert all(torch.equal(one[0], other[0]) for one, other in zip(found, again, strict=True))
    assert not torch.equal(found[0][0], drawn(pairs(4, 4, 4, 3), 1)[0][0])


@pytest.mark.parametrize(
    "batches",
    [
        [torch.full((2, length), float(length)) for length in range(3, 9)],
        [(torch.full((2, 3), float(n)), torch.arange(5)) for n in range(6)],
        [(torch.full((2,), float(n)), torch.tensor(1.0)) for n in range(6)],
        [{"x": torch.arange(2) + 2 * n, "kind": n} for n in range(6)],
        [dict(sorted({"x": torch.ones(2), "y": torch.zeros(2)}.items(), reverse=n % 2)) for n in range(6)],
        [torch.eye(4).to_sparse() * (n + 1) for n in range(6)],
    ],
    ids=["many lengths", "no common axis", "a single value", "a value beside", "another order", "sparse"],
)
def test_batches_that_do_not_fit_together_change_places_as_wholes(batches: list[Any]) -> None:
    found, given = [list(map(repr, some)) for some in (drawn(batches), batches)]
    assert sorted(found) == sorted(given) and found != given


def test_a_loader_that_fills_one_buffer_again_and_again_is_mixed() -> None:
    def refilled() -> Iterator[torch.Tensor]:
        buffer = torch.empty(2)
        for n in range(4):
            yield buffer.copy_(torch.arange(2) + 2 * n)

    assert sorted(torch.cat(drawn(refilled())).tolist()) == list(range(8))


def test_memory_bounds_what_is_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "WINDOW", 2 * 4 * (4 + 8))
    found = drawn(pairs(4, 4, 4, 4, 4))
    for first, second in ((0, 8), (8, 16), (16, 20)):
        several = [x for x, _ in found[first // 4 : -(-second // 4)]]
        assert sorted(torch.cat(several).tolist()) == list(range(first, second))


class Over(torch.nn.Module):
    """A model of a batch whose first axis may be anything."""

    def __init__(self, axis: str) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.axis == "time":
            return x.cumsum(0)
        if self.axis == "points of a set":
            return x - x.mean(0)
        if self.axis == "pairs of neighbours":
            return x - x.roll(1, 0)
        if self.axis == "lengths":
            assert bool((x[1:, 0] <= x[:-1, 0]).all())
        return x


class Asked:
    """A task of one model, with the mean or the sum of its output as the loss."""

    vq_weight = None
    summed = False

    def model(self) -> torch.nn.Module:
        raise AssertionError("it can be copied")

    def losses(self, model: torch.nn.Module, batch: Any) -> Losses:
        found = model(batch).square()
        return Losses(task=found.sum() if self.summed else found.mean())


@pytest.mark.parametrize("axis", ["samples", "time", "points of a set", "pairs of neighbours", "lengths"])
@pytest.mark.parametrize("summed", [False, True])
def test_only_samples_are_mixed(axis: str, summed: bool) -> None:
    model, task = Over(axis).train(), Asked()
    task.summed = summed
    batch = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    batch = batch[batch[:, 0].argsort(descending=True)]
    assert is_of_samples(model, task, batch) is (axis == "samples")  # type: ignore[arg-type]
    assert model.training
    assert not is_of_samples(model, task, batch[:1])  # type: ignore[arg-type]


class Carries(torch.nn.Module):
    """A model that carries a state from one batch to the next, or, in train mode, pairs its samples."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.last = kind, torch.zeros(())
        self.drawn = torch.Generator().manual_seed(0)
        self.register_buffer("of_rows", torch.zeros(6))
        if kind == "old weight norm":  # keeps a tensor that is computed, and that deepcopy refuses
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.normed = torch.nn.utils.weight_norm(torch.nn.Linear(3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "a state" or (self.kind == "a state in train mode" and self.training):
            found, self.last = x + self.last, x.mean()
            return found
        if self.kind == "a state that fades":
            found, self.last = x + self.last, 0.9 * self.last + x.mean()
            return found
        if self.kind == "a buffer of another size":
            self.of_rows = x[:, 0].clone()
            return x
        if self.kind == "old weight norm":
            return self.normed(x)
        if self.kind == "pairs in train mode" and self.training:
            return x - x.flip(0)
        if self.kind == "dropout" and self.training:
            return functional.dropout(x, 0.5)
        if self.kind == "noise of its own":
            return x + torch.randn(x.shape, generator=self.drawn)
        return x


@pytest.mark.parametrize(
    ("kind", "of_samples", "in_order"),
    [
        ("samples", True, False),
        ("a state", False, True),
        ("a state in train mode", True, True),
        ("a state that fades", False, True),
        ("a buffer of another size", True, False),
        ("old weight norm", True, False),
        ("pairs in train mode", False, False),
        ("dropout", True, False),
        ("noise of its own", False, False),
    ],
)
def test_what_is_carried_on_or_held_together_in_train_mode(
    kind: str, of_samples: bool, in_order: bool
) -> None:
    model, task = Carries(kind), Asked()
    batches = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0)).unbind()
    assert is_of_samples(model, task, batches[0]) is of_samples  # type: ignore[arg-type]
    assert is_in_order(model, task, batches, ()) is in_order  # type: ignore[arg-type]
    assert not is_in_order(model, task, batches[:1])  # type: ignore[arg-type]


def test_batches_that_must_come_in_order_do_so() -> None:
    given = [torch.full((2,), float(n)) for n in range(8)]
    task = SimpleNamespace(batches=lambda split: given if split != "val" else [])
    free, bound = (Splits(task, CPU, in_order=lambda _, is_so=is_so: is_so) for is_so in (False, True))  # type: ignore[arg-type,misc]
    assert [b[0] for b in bound.train(3)] == [b[0] for b in given]
    assert [b[0] for b in free.train(3)] != [b[0] for b in given]


class Served:
    """Forty samples, a kind after the other."""

    def __init__(self, *, shuffles: bool = False) -> None:
        self.shuffles = shuffles

    def batches(self, split: str) -> Iterator[torch.Tensor]:
        order = torch.randperm(40) if self.shuffles else torch.arange(40)
        yield from order.float().split(8) if split == "train" else ()


@pytest.mark.parametrize(("shuffles", "of_samples"), [(False, True), (False, False), (True, True)])
def test_a_fixed_order_is_mixed_and_an_order_of_the_task_stays(shuffles: bool, of_samples: bool) -> None:
    splits = Splits(Served(shuffles=shuffles), CPU, lambda _: of_samples)  # type: ignore[arg-type]
    assert splits.mixes is (of_samples and not shuffles)
    if not shuffles:
        kept = all(torch.equal(x, torch.arange(8.0) + 8 * n) for n, x in enumerate(splits.train(0)))
        assert kept is not of_samples
    asked = torch.cat(list(splits.train(0, shuffled=True)))
    assert sorted(asked.tolist()) == list(range(40))


def test_the_remedy_mixes_an_order_that_is_not_fixed() -> None:
    splits = Splits(Served(shuffles=True), CPU, lambda _: True)  # type: ignore[arg-type]
    torch.manual_seed(0)
    plain = next(iter(Stretches(splits, 0).of(0, 0)))
    torch.manual_seed(0)
    mixed = next(iter(Stretches(splits, 0, shuffled=True).of(0, 0)))
    assert not torch.equal(plain, mixed)


class Shuffled(Digits):
    """A task whose loaders draw an order, and which answers "stop" with another split, or with its own."""

    served = "val"

    def batches(self, split: str) -> Any:
        x, y = self.data[self.served if split == "stop" else split]
        rows = torch.randperm(len(x))
        yield from zip(x[rows].split(32), y[rows].split(32), strict=True)


@pytest.mark.parametrize(("served", "repeats"), [("val", True), ("train", True), ("stop", False)])
def test_a_split_that_repeats_another_is_seen_through_a_loader_that_shuffles(
    served: str, repeats: bool
) -> None:
    task = Shuffled()
    task.served = served
    assert Splits(task, CPU).repeats is repeats  # type: ignore[arg-type]


class Gridded(Digits):
    """A task with a large constant in each batch, whose train batches are larger."""

    def batches(self, split: str) -> Any:
        for x, y in super().batches(split):
            yield {"grid": torch.ones(500 if split == "train" else 400), "x": x, "y": y}


def test_a_constant_of_every_batch_makes_no_repeated_split() -> None:
    assert not Splits(Gridded(), CPU).repeats  # type: ignore[arg-type]


class Unlabelled(Digits):
    """A task that answers "stop" with the samples of val, and has no labels for it."""

    def batches(self, split: str) -> Any:
        for x, y in super().batches("val" if split == "stop" else split):
            yield (x, None) if split == "stop" else (x, y)


def test_val_without_its_labels_is_no_stop_split() -> None:
    splits = Splits(Unlabelled(), CPU)  # type: ignore[arg-type]
    assert splits.repeats


class Overflows(Digits):
    """A task whose gradients are not finite from some step on."""

    first, steps = 3, 0

    def losses(self, model: torch.nn.Module, batch: Any) -> Losses:
        found = super().losses(model, batch)
        if not torch.is_grad_enabled():
            return found
        self.steps += 1
        return (
            replace(found, task=found.task + _Broken.apply(found.task)) if self.steps > self.first else found
        )


class _Broken(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor) -> torch.Tensor:
        return loss * 0

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * float("nan")


def test_steps_whose_gradients_are_not_finite_are_left_out(start: Start) -> None:
    trainer = start(Overflows(), plan=TrainingPlan(epochs=1, clip_norm=1.0))
    trainer.run()
    assert trainer.optimizers.taken == 3 < trainer.steps
    assert all(bool(p.isfinite().all()) for p in trainer.model.parameters())
    task = Overflows()
    task.first = 0
    with pytest.raises(UserError, match="no step of epoch 1 has finite gradients"):
        start(task, plan=TrainingPlan(epochs=1, clip_norm=1.0)).run()


@pytest.mark.parametrize("kind", [torch.optim.LBFGS, torch.optim.SparseAdam])
def test_an_optimizer_that_needs_more_than_gradients_is_refused(
    kind: type[torch.optim.Optimizer], start: Start
) -> None:
    task = Digits()
    task.optimizer = lambda model: kind(model.parameters())  # type: ignore[method-assign]
    with pytest.raises(UserError, match=f"{kind.__name__}, which task.optimizer"):
        start(task, plan=TrainingPlan(epochs=1)).run()


def test_gradients_are_clipped(start: Start) -> None:
    norms: list[float] = []

    def seen(optimizer: torch.optim.Optimizer, *_: object) -> None:
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.nn.utils.get_total_norm(grads)))

    for clip_norm in (0.0, 1e-3):
        trainer = start(Digits(), plan=TrainingPlan(epochs=1, clip_norm=clip_norm))
        trainer.optimizer.register_step_pre_hook(seen)
        trainer.run()
        assert (max(norms) <= 1.001e-3) is (clip_norm > 0)
        norms.clear()


class TrainsInEval(torch.nn.Module):
    """A layer that moves at every pass, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def get_extra_state(self) -> str:
        return "no tensor"

    def set_extra_state(self, state: object) -> None: ...

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        return x * self.passes


def test_a_layer_that_trains_in_eval_mode_does_not_hide_the_samples() -> None:
    model = TrainsInEval()
    assert is_of_samples(model, Asked(), torch.ones(4, 2))  # type: ignore[arg-type]
    assert float(model.passes) == 0  # type: ignore[arg-type]


def test_statistics_that_hardly_follow_get_the_usual_momentum() -> None:
    momenta = (0.1, 1e-4, 0.01, None, 0.99)
    norms = torch.nn.Sequential(*(torch.nn.BatchNorm1d(2, momentum=momentum) for momentum in momenta))
    norms.append(torch.nn.BatchNorm1d(2, momentum=1e-4, track_running_stats=False))
    norms.append(torch.nn.BatchNorm1d(2, momentum=0.0))
    norms.append(torch.nn.BatchNorm1d(2, momentum=0.0, affine=False))
    assert let_statistics_follow(norms, 0.1) == 4
    assert [norm.momentum for norm in norms] == [0.1, 0.1, 0.01, 0.1, 0.1, 1e-4, 0.1, 0.0]
