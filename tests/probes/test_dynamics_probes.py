"""The probes of dynamics and of use, against the same done by hand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from stored import Stored
from torch import nn
from torch.nn import functional
from vector_quantize_pytorch import ResidualVQ, VectorQuantize

from vqdoctor.capture.writes import Writes
from vqdoctor.core.evidence import (
    CodeSequences,
    EncoderSpread,
    Evidence,
    LevelUse,
    Revival,
    Trace,
    Unavailable,
)
from vqdoctor.layouts import find_quantizers
from vqdoctor.models.task import Losses
from vqdoctor.models.untouched import untouched
from vqdoctor.probes.model import (
    ModelContext,
    code_sequences,
    encoder_spread,
    level_use,
    revival,
    trace,
)

DIM, LENGTH = 8, 12


class Classifier(nn.Module):
    def __init__(self, vq: nn.Module) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, DIM)
        self.vq = vq
        self.head = nn.Linear(DIM, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, _, loss = self.vq(self.encoder(x))
        return self.head(z_q.mean(1)), loss.sum()


class Task:
    vq_weight: float | None = 0.25

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.y = torch.arange(64) % 4
        centres = torch.randn(4, 3, generator=generator)
        self.x = centres[self.y][:, None] + 0.3 * torch.randn(64, LENGTH, 3, generator=generator)

    def model(self) -> nn.Module:
        raise NotImplementedError("copies are enough")

    def batches(self, split: str) -> Iterator[Any]:
        return zip(self.x.split(16), self.y.split(16), strict=True)

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        logits, vq = model(batch[0])
        return Losses(task=functional.cross_entropy(logits, batch[1]), vq=vq, logits=logits, labels=batch[1])


class WithOptimizer(Task):
    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.05)


def context(model: nn.Module, task: Any = None, **more: Any) -> ModelContext:
    found = find_quantizers({name: Stored(t) for name, t in model.state_dict().items()})
    assert found.views
    return ModelContext(
        model=model,
        task=task or Task(),
        views=found.views,
        **more,
    )


def ask(probe: Any, ctx: ModelContext) -> list[Evidence | Unavailable]:
    with untouched(ctx.model, seed=0):
        return list(probe.PROBE.measure(ctx))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def test_nothing_is_trained_unless_it_is_asked_for() -> None:
    (gap,) = ask(trace, context(Classifier(VectorQuantize(DIM, 16))))
    assert isinstance(gap, Unavailable)
    assert gap.hint == "--decide"


def test_a_trace_is_what_training_by_hand_gives() -> None:
    model = Classifier(VectorQuantize(DIM, 16, rotation_trick=False, decay=0.9)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    task = WithOptimizer()
    (got,) = ask(trace, context(model, task, probe_steps=6))
    assert isinstance(got, Trace)
    assert (got.optimizer, got.own, got.learning_rate) == ("SGD", True, 0.05)
    assert (got.vq_weight, got.weight_known, got.sample_size) == (0.25, True, 6)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)

    sgd = task.optimizer(model)
    batches = list(task.batches("train"))
    seen = set()
    for step in range(6):
        x, y = batches[step % 4]
        z_e = model.encoder(x)
        z_e.retain_grad()
        z_q, indices, vq_loss = model.vq(z_e)
        task_loss = functional.cross_entropy(model.head(z_q.mean(1)), y)
        sgd.zero_grad()
        (task_loss + 0.25 * vq_loss.sum()).backward()
        encoder = torch.cat([p.grad.flatten() for p in model.encoder.parameters()])
        sgd.step()
        used, counts = np.unique(indices, return_counts=True)
        shares = counts / counts.sum()
        seen |= set(used.tolist())
        codes = model.vq._codebook.embed[0][used]
        expected = {
            "task_loss": task_loss, "vq_loss": vq_loss.sum(), "z_e_rms": z_e.square().mean().sqrt(),
            "codebook_rms": codes.square().mean().sqrt(), "z_e_gradient": z_e.grad.norm(),
            "encoder_gradient": encoder.norm(), "perplexity": np.exp(-(shares * np.log(shares)).sum()),
            "used": len(used), "vectors": 16 * LENGTH,
        }  # fmt: skip
        for name, value in expected.items():
            value = value.detach() if isinstance(value, torch.Tensor) else value
            assert getattr(got, name)[step] == pytest.approx(float(value), rel=1e-4), name
    assert got.used_in_all == len(seen)


def test_without_optimizer_and_weight_the_trace_says_what_it_assumed() -> None:
    task = Task()
    task.vq_weight = None
    (got,) = ask(trace, context(Classifier(VectorQuantize(DIM, 16)), task, probe_steps=2))
    assert isinstance(got, Trace)
    assert (got.optimizer, got.own, got.learning_rate) == ("Adam", False, 1e-3)
    assert (got.vq_weight, got.weight_known) == (1.0, False)


def test_a_loss_that_blows_up_ends_the_trace_and_keeps_what_was_before() -> None:
    class Bursting(Task):
        calls = 0

        def losses(self, model: nn.Module, batch: Any) -> Losses:
            self.calls += 1
            losses = super().losses(model, batch)
            # the first call finds the layers, the third and later are steps two and on
            return Losses(task=losses.task * (float("nan") if self.calls > 3 else 1.0), vq=losses.vq)

    ctx = context(Classifier(VectorQuantize(DIM, 16)), Bursting(), probe_steps=5)
    (got,) = ask(trace, ctx)
    assert isinstance(got, Trace)
    assert got.sample_size < 5
    assert "the loss was nan" in got.stopped


def test_batches_that_can_be_served_once_end_the_trace() -> None:
    class Once(Task):
        def __init__(self) -> None:
            super().__init__()
            self.left = list(super().batches("train"))

        def batches(self, split: str) -> Iterator[Any]:
            left, self.left = self.left, []
            return iter(left)

    ctx = context(Classifier(VectorQuantize(DIM, 16)), Once(), probe_steps=5)
    (got,) = ask(trace, ctx)
    assert isinstance(got, Unavailable | Trace)


@pytest.mark.parametrize("threshold", [0, 2])
def test_a_library_that_revives_puts_nothing_back(threshold: int) -> None:
    vq = VectorQuantize(DIM, 64, threshold_ema_dead_code=threshold, decay=0.9).train()
    model = Classifier(vq)
    for _ in range(20):
        model(Task().x)
    (got,) = ask(revival, context(model))
    assert isinstance(got, Revival)
    assert (got.undone, got.returned, got.num_codes) == (0, 0, 64)


def test_a_write_that_is_undone_is_seen_through_views_and_data() -> None:
    codebook = torch.arange(12.0).view(1, 4, 3) + 1
    with Writes({"vq": codebook}) as writes, torch.no_grad():
        before = codebook.clone()
        codebook.data[0][torch.tensor([False, True, True, False])] = -5.0
        codebook[:, 1:2].copy_(before[:, 1:2])
        codebook.mul_(1.001)
    assert writes.undone("vq") == 1
    with Writes({"vq": codebook}) as writes:
        codebook + 1
    assert writes.undone("vq") == 0


def test_levels_are_held_against_the_first() -> None:
    model = Classifier(ResidualVQ(dim=DIM, codebook_size=16, num_quantizers=3, decay=0.9, kmeans_init=True))
    task = Task()
    for _ in range(10):
        model.train()(task.x)
    got = ask(level_use, context(model))
    assert [(g.level, g.levels, g.written) for g in got if isinstance(g, LevelUse)] == [
        (1, 3, True), (2, 3, True), (3, 3, True),
    ]  # fmt: skip
    with torch.no_grad():
        rest = model.eval().encoder(task.x).reshape(-1, DIM)
        sizes = []
        for layer in model.vq.layers:
            sizes.append(float((rest - rest.mean(0)).square().sum(1).mean().sqrt()))
            rest = rest - layer(rest[None])[0][0]
    assert [g.left for g in got if isinstance(g, LevelUse)] == pytest.approx(
        [size / sizes[0] for size in sizes], rel=1e-3
    )


def test_a_single_layer_is_no_level() -> None:
    (got,) = ask(level_use, context(Classifier(VectorQuantize(DIM, 16))))
    assert isinstance(got, Unavailable)


def test_spread_of_encoder_and_input() -> None:
    model, task = Classifier(VectorQuantize(DIM, 16)), Task()
    (got,) = ask(encoder_spread, context(model, task))
    assert isinstance(got, EncoderSpread)
    with torch.no_grad():
        z = model.encoder(task.x).reshape(-1, DIM).double().numpy()
    x = task.x.reshape(64, -1).double().numpy()
    for value, rows in ((got.output_spread, z), (got.input_spread, x)):
        assert value == pytest.approx(np.sqrt(rows.var(0).sum() / (rows**2).sum(1).mean()), rel=1e-4)
    singular = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2
    share = singular / singular.sum()
    assert got.input_rank == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-4)


def test_sequences_against_a_naive_count() -> None:
    model, task = Classifier(VectorQuantize(DIM, 16, kmeans_init=True)), Task()
    model.train()(task.x)
    (got,) = ask(code_sequences, context(model, task))
    assert isinstance(got, CodeSequences)
    with torch.no_grad():
        codes = model.eval().vq(model.encoder(task.x))[1].tolist()
    runs = sum(1 + sum(a != b for a, b in itertools.pairwise(row)) for row in codes)
    assert (got.sequences, got.length) == (64, LENGTH)
    assert got.dwell == pytest.approx(64 * LENGTH / runs)
    assert got.constant_share == sum(len(set(row)) == 1 for row in codes) / 64
    follow: dict[int, list[int]] = {}
    for row in codes:
        for now, after in itertools.pairwise(row):
            follow.setdefault(now, []).append(after)
    total = sum(map(len, follow.values()))
    entropy = 0.0
    for after in follow.values():
        shares = np.unique(after, return_counts=True)[1] / len(after)
        entropy -= len(after) / total * float((shares * np.log2(shares)).sum())
    assert got.transition_entropy == pytest.approx(entropy)
    modes = [max(map(column.count, column)) for column in (list(c) for c in zip(*codes, strict=True))]
    assert got.same_share == pytest.approx(sum(modes) / (64 * LENGTH))
