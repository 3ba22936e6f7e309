"""Several processes that train together: one codebook, and the result of one process with the whole batch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import torch
from rank_training import Recorded
from ranked import in_threads, ranks_of
from small_training import Digits
from torch import nn

from vqdoctor.core.errors import UserError
from vqdoctor.core.launcher import Launched
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.models.task import Losses
from vqdoctor.training.ranks import Ranks, joined
from vqdoctor.training.shares import Shares
from vqdoctor.training.trainer import Trainer

Start = Callable[..., Trainer]
PLAN = TrainingPlan(epochs=2, vq_weight=0.1, data_init=True, revive_under=0.1, seed=3)


def trained(start: Start, size: int, plan: TrainingPlan, make: Callable[[], Recorded]) -> list[Trainer]:
    trainers = [
        start(make(), plan=plan, ranks=ranks) for ranks in (ranks_of(size) if size > 1 else [Ranks()])
    ]
    in_threads([trainer.run for trainer in trainers])
    return trainers


@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        replace(PLAN, sound_ema=True, data_init=False),
        replace(PLAN, balanced=True, commitment=0.25, entropy_weight=0.1),
        replace(PLAN, linear=True, bypass_epochs=1),
        replace(PLAN, moment_matching=True, frozen_epochs=1, geometry="unit-variance"),
    ],
    ids=["ema", "sound-ema", "losses", "linear", "moments"],
)
def test_two_processes_have_one_codebook_and_that_of_one_process(start: Start, plan: TrainingPlan) -> None:
    one, two = trained(start, 1, plan, Recorded), trained(start, 2, plan, Recorded)
    alone, *both = [trainer.task.codebooks for trainer in (*one, *two)]
    assert len(alone) == len(both[0]) == len(both[1]) > 4
    assert not torch.equal(alone[0], alone[-1])
    for step, (mine, first, second) in enumerate(zip(alone, *both, strict=True)):
        assert torch.equal(first, second), step
        torch.testing.assert_close(first, mine, atol=1e-8, rtol=0, msg=lambda said, at=step: f"{at}: {said}")
    states = [trainer.model.state_dict() for trainer in (*one, *two)]
    for name in states[0]:
        torch.testing.assert_close(states[1][name], states[0][name], atol=1e-8, rtol=0)
        assert torch.equal(states[1][name], states[2][name]), name
    assert not two[0].notes and two[0].rows == two[1].rows
    assert [row.revived for row in one[0].rows] == [row.revived for row in two[0].rows]


def test_a_batch_of_five_among_three_is_weighed_by_its_samples(start: Start) -> None:
    """The last batch of 200 digits has fewer samples: the parts of 5 among 3 have 1, 2 and 2."""
    ranks = ranks_of(3)
    batch = (torch.randn(5, 2), torch.arange(5))
    shares = [Shares(ranks=one) for one in ranks]
    parts = [one.of(batch) for one in shares]
    assert torch.equal(torch.cat([x for x, _ in parts]), batch[0])
    assert [one.weight for one in shares] == [1 / 5, 2 / 5, 2 / 5]
    gathered = in_threads(
        [lambda s=s, p=p: s.gathered(p[0].repeat(3, 1)) for s, p in zip(shares, parts, strict=True)]
    )
    assert all(torch.equal(one, gathered[0]) for one in gathered) and len(gathered[0]) == 15


class Summed(Recorded):
    """A task loss that is a sum over the batch: half of the samples have half of it."""

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        found = super().losses(model, batch)
        return replace(found, task=found.task * len(batch[0]))


def test_a_loss_that_is_no_mean_is_computed_whole_by_each(start: Start) -> None:
    plan = replace(PLAN, data_init=False, epochs=1)
    (one,), two = trained(start, 1, plan, Summed), trained(start, 2, plan, Summed)
    assert two[0].notes == [
        "each of 2 processes ran whole batches: the loss of a batch is not the mean of its parts' losses"
    ]
    assert torch.equal(one.task.codebooks[-1], two[0].task.codebooks[-1])
    assert torch.equal(two[0].task.codebooks[-1], two[1].task.codebooks[-1])


class OwnOrder(Digits):
    """A task whose order is another one in each process."""

    made = 0

    def __init__(self) -> None:
        super().__init__(images=200)
        OwnOrder.made += 1
        self.own = OwnOrder.made

    def shuffled(self, seed: int) -> Iterator[Any]:
        return super().shuffled(seed + self.own)


def test_batches_in_another_order_are_an_error(start: Start) -> None:
    trainers = [start(OwnOrder(), plan=TrainingPlan(epochs=1), ranks=one) for one in ranks_of(2)]
    with pytest.raises(UserError, match="different batches"):
        in_threads([trainer.run for trainer in trainers])


def test_a_process_that_ends_ends_the_others_with_one_line(start: Start) -> None:
    first, second = ranks_of(2, timedelta(seconds=0.5))
    assert [first.may_tell(), second.may_tell()] == [True, False]
    with pytest.raises(UserError) as error:
        first.added([1.0])  # the second never answers
    assert "one of 2 processes ended" in str(error.value) and "--resume" in str(error.value)


def test_a_run_of_two_goes_on_in_four(start: Start) -> None:
    plan = replace(PLAN, epochs=3)
    whole = trained(start, 2, plan, Recorded)
    begun = [start(Recorded(), plan=plan, ranks=one) for one in ranks_of(2)]
    in_threads([lambda one=one: one.train_to(1) for one in begun])
    kept = begun[0].state_dict()
    four = [start(Recorded(), plan=plan, ranks=one) for one in ranks_of(4)]
    for one in four:
        one.load_state_dict(kept)
    in_threads([one.run for one in four])
    for name, tensor in whole[0].model.state_dict().items():
        torch.testing.assert_close(four[3].model.state_dict()[name], tensor, atol=1e-8, rtol=0)


class Norm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1)
        self.register_buffer("table", torch.tensor([-torch.inf, 0.1]))


def test_running_moments_become_their_mean_and_other_buffers_stay() -> None:
    models = [Norm(), Norm()]
    models[1].norm.running_mean += 3.0
    in_threads([lambda r=r, m=m: r.same_buffers(m) for r, m in zip(ranks_of(2), models, strict=True)])
    for model in models:
        assert model.norm.running_mean.tolist() == [1.5]
        assert model.table.tolist() == [-torch.inf, pytest.approx(0.1)]


@pytest.mark.parametrize("value", ["", {"a": [1, None, "é"]}, 2**40, True])
def test_all_agree_on_what_rank_zero_says(value: object) -> None:
    said = in_threads([lambda r=r: r.agreed(value if r.first else "other") for r in ranks_of(2)])
    assert said == [value, value]


def test_one_process_has_nothing_to_exchange() -> None:
    alone = Shares()
    batch = (torch.randn(4, 2),)
    assert alone.of(batch) is batch and alone.weight == 1.0 and alone.gathered(batch[0]) is batch[0]
    assert alone.ranks.agreed(alone) is alone and alone.added([2.0]) == [2.0]


def test_a_single_process_imports_nothing_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, "distributed")
    monkeypatch.setitem(sys.modules, "torch.distributed", None)
    with joined(Launched()) as ranks:
        assert ranks.size == 1 and ranks.group is None
    with pytest.raises(ImportError), joined(Launched(size=2)):
        pass
