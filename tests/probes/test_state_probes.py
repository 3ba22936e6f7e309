"""What forward passes do to a codebook, and how batches are mixed: against the same thing done by hand."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from stored import Stored
from torch import nn
from torch.nn import functional
from vector_quantize_pytorch import ResidualVQ, VectorQuantize

from vqdoctor.core.evidence import (
    BatchMixing,
    CodeExpiry,
    EvalForward,
    Evidence,
    TrainForward,
    TrainingRecord,
    Unavailable,
    WeightDecay,
)
from vqdoctor.layouts import find_quantizers
from vqdoctor.models.task import Losses
from vqdoctor.models.untouched import untouched
from vqdoctor.probes.model import (
    ModelContext,
    batch_mixing,
    code_expiry,
    eval_forward,
    train_forward,
    weight_decay,
)

POSITIONS, DIM, CODES = 6, 8, 16


class Classifier(nn.Module):
    def __init__(self, vq: nn.Module) -> None:
        super().__init__()
        self.encoder, self.vq, self.head = nn.Linear(3, DIM), vq, nn.Linear(DIM, 4)
        self.norm = nn.BatchNorm1d(POSITIONS)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, _, loss = self.vq(self.norm(self.encoder(x)))[:3]
        return self.head(z_q.mean(1)), loss.sum()


class Task:
    """Four kinds of sequences in batches of 8, in the order asked for."""

    vq_weight = 0.25

    def __init__(self, order: str = "random", size: int = 8, samples: int = 512) -> None:
        generator = torch.Generator().manual_seed(1)
        y = torch.arange(samples) % 4
        if order == "sorted":
            y = y.sort().values
        elif order == "alike within":  # batches of one kind each, but the batches in a random order
            y = y.sort().values.view(-1, size)[torch.randperm(samples // size, generator=generator)].flatten()
        elif order == "random":
            y = y[torch.randperm(samples, generator=generator)]
        centres = 2 * torch.randn(4, 3, generator=generator)
        self.y, self.size = y, size
        self.x = centres[y][:, None] + 0.3 * torch.randn(samples, POSITIONS, 3, generator=generator)

    def model(self) -> nn.Module:
        raise NotImplementedError

    def batches(self, split: str) -> Iterator[Any]:
        return zip(self.x.split(self.size), self.y.split(self.size), strict=True)

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        logits, vq = model(batch[0])
        return Losses(task=functional.cross_entropy(logits, batch[1]), vq=vq, logits=logits, labels=batch[1])


def context(model: nn.Module, task: Any = None) -> ModelContext:
    found = find_quantizers({name: Stored(t) for name, t in model.state_dict().items()})
    assert found.views
    return ModelContext(model=model, task=task or Task(), views=found.views)


def ask(probe: Any, ctx: ModelContext) -> list[Evidence | Unavailable]:
    with untouched(ctx.model, seed=0):
        return list(probe.PROBE.measure(ctx))


def trained(vq: nn.Module, steps: int = 40) -> Classifier:
    """Forward passes in train mode: what moves an EMA codebook."""
    model = Classifier(vq).train()
    task = Task()
    done = 0
    with torch.no_grad():
        while done < steps:
            for batch in task.batches("train"):
                task.losses(model, batch)
                done += 1
    return model


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_the_first_move_is_that_of_a_pass_by_hand() -> None:
    model = trained(VectorQuantize(dim=DIM, codebook_size=CODES, decay=0.8))
    task = Task()
    (found,) = ask(train_forward, context(model, task))
    twin = copy.deepcopy(model).train()
    before, counts = (b.clone()[0] for b in (twin.vq._codebook.embed, twin.vq._codebook.cluster_size))
    with torch.no_grad():
        task.losses(twin, next(task.batches("train")))
    used = counts > 1e-3 * counts.mean()
    way = (twin.vq._codebook.embed[0] - before).norm(dim=1)[used].numpy()
    radius = (before[used] - before[used].mean(0)).norm(dim=1).numpy()
    assert isinstance(found, TrainForward)
    assert found.first_moved == pytest.approx(np.median(way) / np.median(radius), rel=1e-4)
    assert 0 < found.first_moved < 0.3 and found.writes_counts is True


def test_a_codebook_that_starts_itself_moves_far_once() -> None:
    model = trained(VectorQuantize(dim=DIM, codebook_size=CODES, kmeans_init=True))
    model.vq._codebook.initted.fill_(False)
    (found,) = ask(train_forward, context(model))
    assert isinstance(found, TrainForward)
    assert found.first_moved > 0.5 > 2 * found.later_moved


def test_a_learnable_codebook_is_left_alone_by_a_forward_pass() -> None:
    vq = VectorQuantize(dim=DIM, codebook_size=CODES, learnable_codebook=True, ema_update=False)
    (found,) = ask(train_forward, context(Classifier(vq)))
    assert isinstance(found, TrainForward)
    assert (found.first_moved, found.later_moved, found.writes_counts) == (0.0, 0.0, False)


def test_every_residual_level_is_looked_at_by_itself() -> None:
    model = trained(ResidualVQ(dim=DIM, codebook_size=CODES, num_quantizers=3))
    for probe, kind in ((train_forward, TrainForward), (code_expiry, CodeExpiry)):
        found = ask(probe, context(model))
        assert len(found) == 3 and all(isinstance(e, kind) for e in found)


@pytest.mark.parametrize(("threshold", "runaway"), [(8, True), (0, False)])
def test_replaced_codes_are_counted(threshold: float, runaway: bool) -> None:
    """48 vectors a batch for 16 codes: three a code."""
    vq = VectorQuantize(dim=DIM, codebook_size=CODES, threshold_ema_dead_code=threshold)
    (found,) = ask(code_expiry, context(trained(vq)))
    assert isinstance(found, CodeExpiry)
    assert (found.vectors, found.sample_size, found.threshold) == (48.0, CODES, threshold or None)
    assert found.replaced is not None and (found.replaced > 0.5) is runaway
    assert (found.expired is not None) is runaway


def test_a_number_of_steps_is_no_count_under_which_codes_are_replaced() -> None:
    vq = VectorQuantize(dim=DIM, codebook_size=CODES)
    vq._codebook.dead_code_threshold, vq._codebook.enable_dead_code_refresh = 100, False
    (found,) = ask(code_expiry, context(trained(vq)))
    assert isinstance(found, CodeExpiry)
    assert found.threshold is None


@pytest.mark.parametrize("trained_first", [True, False])
def test_nothing_changes_in_eval_mode_unless_it_initialises(trained_first: bool) -> None:
    vq = VectorQuantize(dim=DIM, codebook_size=CODES, kmeans_init=True)
    layer, rest = ask(eval_forward, context(trained(vq) if trained_first else Classifier(vq)))
    assert isinstance(layer, EvalForward) and isinstance(rest, EvalForward)
    assert (rest.layer, rest.changed_count) == (None, 0)  # BatchNorm's statistics stand still
    assert layer.sample_size == len(list(vq.buffers())) and rest.sample_size == 9
    assert layer.codebook is not trained_first
    assert layer.again is (None if trained_first else False)
    if not trained_first:
        assert "vq._codebook.embed" in layer.changed and "vq._codebook.initted" in layer.changed


class CountsInEval(VectorQuantize):
    """As BEiT-2 does: usage is counted in eval mode too."""

    def forward(self, z: torch.Tensor) -> Any:  # type: ignore[override]
        out = super().forward(z)
        if not self.training:
            votes = torch.bincount(out[1].flatten(), minlength=CODES).float()
            self._codebook.cluster_size.lerp_(votes[None], 0.01)
        return out


class UnguardedEma(VectorQuantize):
    """Its EMA follows every batch, in eval mode as well."""

    def forward(self, z: torch.Tensor) -> Any:  # type: ignore[override]
        out = super().forward(z)
        if not self.training:
            self._codebook.embed.lerp_(z.mean((0, 1)), 0.1)
        return out


def test_an_ema_that_runs_in_eval_mode_changes_the_codebook_again() -> None:
    layer, _ = ask(eval_forward, context(trained(UnguardedEma(dim=DIM, codebook_size=CODES))))
    assert isinstance(layer, EvalForward)
    assert layer.codebook and layer.again


def test_counts_that_change_in_eval_mode_are_no_change_of_the_codebook() -> None:
    layer, _ = ask(eval_forward, context(trained(CountsInEval(dim=DIM, codebook_size=CODES))))
    assert isinstance(layer, EvalForward)
    assert (layer.changed, layer.codebook, layer.again) == (("vq._codebook.cluster_size",), False, None)


def learnable() -> Classifier:
    vq = VectorQuantize(dim=DIM, codebook_size=CODES, learnable_codebook=True, ema_update=False)
    return Classifier(vq)


@pytest.mark.parametrize(("exempt", "expected"), [(False, 0.3), (True, 0.0)])
def test_the_group_that_holds_the_codebook_says_its_decay(exempt: bool, expected: float) -> None:
    class WithOptimizer(Task):
        def optimizer(self, model: Any) -> torch.optim.Optimizer:
            rest = [p for n, p in model.named_parameters() if "embed" not in n]
            groups = [{"params": rest}, {"params": [model.vq._codebook.embed]}]
            groups[1]["weight_decay"] = 0.0 if exempt else 0.3  # type: ignore[assignment]
            return torch.optim.AdamW(groups, lr=0.02)

    (found,) = ask(weight_decay, context(learnable(), WithOptimizer()))
    assert isinstance(found, WeightDecay)
    assert (found.weight_decay, found.learning_rate, found.adaptive) == (expected, 0.02, False)
    assert found.updates is None and found.lost is None


@pytest.mark.parametrize(("kind", "reach"), [(torch.optim.Adam, 2.0), (torch.optim.SGD, None)])
def test_the_way_of_a_code_is_bounded_under_adam(kind: Any, reach: float | None) -> None:
    class WithOptimizer(Task):
        def optimizer(self, model: Any) -> torch.optim.Optimizer:
            optimizer: torch.optim.Optimizer = kind(model.parameters(), lr=0.002)
            optimizer.param_groups[0]["initial_lr"] = 0.02  # a schedule has come down from there
            return optimizer

    known = replace(context(learnable(), WithOptimizer()), record=TrainingRecord.healthy(updates=100))
    (found,) = ask(weight_decay, known)
    assert isinstance(found, WeightDecay) and found.learning_rate == pytest.approx(0.002)
    assert found.reach == reach


def test_without_an_optimizer_nothing_is_said_of_weight_decay() -> None:
    (gap,) = ask(weight_decay, context(learnable()))
    assert isinstance(gap, Unavailable) and "no optimizer" in gap.reason


def mixing(order: str, **options: Any) -> BatchMixing:
    model = trained(VectorQuantize(dim=DIM, codebook_size=CODES))
    (found,) = ask(batch_mixing, context(model, Task(order, **options)))
    assert isinstance(found, BatchMixing)
    return found


def test_sorted_data_drift_and_shuffled_data_do_not() -> None:
    in_order, shuffled = mixing("sorted"), mixing("random")
    for drift, z in ((in_order.label_drift, in_order.label_z), (in_order.code_drift, in_order.code_z)):
        assert drift is not None and z is not None and drift > 0.5 and z > 20
    for drift, z in ((shuffled.label_drift, shuffled.label_z), (shuffled.code_drift, shuffled.code_z)):
        assert drift is not None and z is not None and abs(drift) < 0.05 and abs(z) < 5
    assert (shuffled.batch_size, shuffled.batches, shuffled.sample_size) == (8, 64, 512)


@pytest.mark.parametrize("order", ["alike within", "in turn"])
def test_neither_batches_of_one_kind_in_random_order_nor_kinds_in_turn_drift(order: str) -> None:
    found = mixing(order)
    assert found.label_drift is not None and found.label_drift < 0.1
    assert found.code_drift is not None and found.code_drift < 0.1


def test_the_drift_is_the_correlation_between_samples_of_neighbouring_batches() -> None:
    """By hand: pairs from different batches of one block, against pairs from anywhere."""
    found = mixing("sorted", samples=256, size=4)
    y = Task("sorted", samples=256, size=4).y.numpy()
    same = (y[:, None] == y[None]).astype(float)
    batch, block = np.arange(256) // 4, np.arange(256) // 16
    near = (block[:, None] == block[None]) & (batch[:, None] != batch[None])
    apart = ~np.eye(256, dtype=bool)
    by_hand = (same[near].mean() - same[apart].mean()) / (1 - same[apart].mean())
    assert found.label_drift == pytest.approx(by_hand, rel=0.05)


def test_batches_of_one_sample_can_drift_too() -> None:
    found = mixing("sorted", size=1, samples=128)
    assert found.batch_size == 1 and found.label_drift is not None and found.label_drift > 0.5


def test_the_order_of_a_data_file_and_a_few_batches_are_no_evidence() -> None:
    model = trained(VectorQuantize(dim=DIM, codebook_size=CODES))
    from_a_file = context(model, Task("sorted"))
    from_a_file.arrays = {"x": np.zeros(3)}
    too_few = context(model, Task("sorted", samples=64))
    for ctx, reason in ((from_a_file, "data file"), (too_few, "16 training batches")):
        (gap,) = ask(batch_mixing, ctx)
        assert isinstance(gap, Unavailable) and reason in gap.reason
