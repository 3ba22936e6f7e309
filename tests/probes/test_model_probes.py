"""The model's probes on real quantizers, against autograd by hand and naive counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from judged import says
from stored import Stored
from torch import nn
from torch.nn import functional
from vector_quantize_pytorch import ResidualVQ, VectorQuantize

from vqdoctor.core.evidence import (
    CodebookGradient,
    DataMatch,
    Evidence,
    GradientPath,
    LossBalance,
    PositionInformation,
    TaskGradient,
    TaskMetrics,
    Unavailable,
    Usage,
)
from vqdoctor.layouts import find_quantizers
from vqdoctor.models.task import Losses
from vqdoctor.models.untouched import untouched
from vqdoctor.probes import model as model_probes
from vqdoctor.probes.model import ModelContext
from vqdoctor.reference.model import Conv2dVQClassifier

POSITIONS, DIM = 6, 8


class Classifier(nn.Module):
    """Linear encoder, any quantizer of [B, N, D], and a head on the mean over positions."""

    def __init__(self, vq: nn.Module, *, detach_after: bool = False) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, DIM)
        self.vq = vq
        self.head = nn.Linear(DIM, 4)
        self.detach_after = detach_after

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z_q, _, loss = self.vq(self.encoder(x))
        if self.detach_after:
            z_q = z_q.detach()
        return self.head(z_q.mean(1)), loss.sum()


class ToyTask:
    """Four clusters of sequences; batches of 16."""

    vq_weight = 0.25

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        generator = torch.Generator().manual_seed(1)
        centres = torch.randn(4, 3, generator=generator)
        self.y = torch.arange(64) % 4
        self.x = centres[self.y][:, None] + 0.3 * torch.randn(64, POSITIONS, 3, generator=generator)

    def model(self) -> nn.Module:
        return self._model

    def batches(self, split: str) -> Iterator[Any]:
        return zip(self.x.split(16), self.y.split(16), strict=True)

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        logits, vq = model(batch[0])
        return Losses(task=functional.cross_entropy(logits, batch[1]), vq=vq, logits=logits, labels=batch[1])


def context(model: nn.Module, task: Any = None) -> ModelContext:
    found = find_quantizers({name: Stored(t) for name, t in model.state_dict().items()})
    assert found.views
    return ModelContext(
        model=model,
        task=task or ToyTask(model),
        views=found.views,
    )


def examine(ctx: ModelContext) -> dict[tuple[type, str | None], Evidence | Unavailable]:
    with untouched(ctx.model, seed=0):
        items = [item for probe in model_probes.all_probes() for item in probe.measure(ctx)]
    kinds = Evidence.registry
    return {(type(i) if isinstance(i, Evidence) else kinds[i.kind], i.layer): i for i in items}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def path_of(vq: nn.Module) -> GradientPath:
    ctx = context(Classifier(vq))
    (view,) = ctx.views
    evidence = examine(ctx)[GradientPath, view.name]
    assert isinstance(evidence, GradientPath)
    return evidence


def test_straight_through_passes_the_gradient_unchanged() -> None:
    path = path_of(VectorQuantize(dim=DIM, codebook_size=16, rotation_trick=False))
    assert path.estimator == "straight-through"
    assert path.ratio == pytest.approx(1)
    assert path.cosine == pytest.approx(1)


def test_the_rotation_trick_is_recognised_and_connected() -> None:
    path = path_of(VectorQuantize(dim=DIM, codebook_size=16, rotation_trick=True))
    assert path.estimator == "rotation"
    assert path.zero_share == 0


@pytest.mark.parametrize("options", [{"use_cosine_sim": True}, {"codebook_dim": 4}])
def test_other_estimators_are_connected(options: dict[str, Any]) -> None:
    path = path_of(VectorQuantize(dim=DIM, codebook_size=16, **options))
    assert path.estimator in ("custom", "straight-through", "rotation")
    assert path.ratio > 0.05


def test_small_projections_around_the_codes_are_not_called_a_missing_estimator() -> None:
    layer = VectorQuantize(dim=DIM, codebook_size=16, codebook_dim=4, rotation_trick=False)
    with torch.no_grad():
        for projection in (layer.project_in, layer.project_out):
            projection.weight.mul_(0.03)
    path = path_of(layer)
    assert 0 < path.ratio < 0.001 and path.zero_share == 0
    assert says("VQ101", path) == "warning"
    assert says("VQ101", path_of(NoEstimator("bare"))) == "error"


class NoEstimator(nn.Module):
    """A VQ layer of [B, N, D] whose output is the bare codes, or detached twice."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(16, DIM), requires_grad=how == "leaks")
        self.how = how

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        indices = torch.cdist(z, self.embedding.expand(len(z), -1, -1)).argmin(-1)
        codes = self.embedding[indices]
        loss = functional.mse_loss(z, codes.detach())
        if self.how == "zero":
            codes = z + (codes - z)  # without the detach: the gradient cancels to exactly zero
        return codes, indices, loss


@pytest.mark.parametrize(("how", "estimator"), [("bare", "none"), ("leaks", "none"), ("zero", "zero")])
def test_a_missing_estimator_is_none_or_zero(how: str, estimator: str) -> None:
    model = Classifier(NoEstimator(how))
    (path,) = (e for (kind, _), e in examine(context(model, ToyTask(model))).items() if kind is GradientPath)
    assert isinstance(path, GradientPath)
    assert (path.estimator, path.ratio, path.zero_share) == (estimator, 0.0, 1.0)


def test_every_residual_level_is_probed_by_itself() -> None:
    vq = ResidualVQ(dim=DIM, codebook_size=16, num_quantizers=3, rotation_trick=False)
    paths = {name: e for (kind, name), e in examine(context(Classifier(vq))).items() if kind is GradientPath}
    assert len(paths) == 3
    assert all(isinstance(p, GradientPath) and p.estimator == "straight-through" for p in paths.values())


def test_a_detach_after_a_healthy_layer_shows_in_the_task_gradient_only() -> None:
    vq = VectorQuantize(dim=DIM, codebook_size=16, rotation_trick=False)
    found = examine(context(Classifier(vq, detach_after=True)))
    path, task = found[GradientPath, "vq"], found[TaskGradient, "vq"]
    assert isinstance(path, GradientPath) and path.estimator == "straight-through"
    assert isinstance(task, TaskGradient)
    assert (task.at_output, task.at_input, task.before) == (None, 0.0, 0.0)
    assert task.after is not None and task.after > 0


def test_task_gradient_and_loss_balance_agree_with_autograd_by_hand() -> None:
    model = Classifier(VectorQuantize(dim=DIM, codebook_size=16, rotation_trick=False)).train()
    task = ToyTask(model)
    ctx = context(model, task)
    ctx.train_batches = 1
    found = examine(ctx)
    twin = ctx.copy(training=True)
    batch = next(task.batches("train"))
    z_e = twin.encoder(batch[0]).detach().requires_grad_()
    z_q, _, vq_loss = twin.vq(z_e)
    loss = functional.cross_entropy(twin.head(z_q.mean(1)), batch[1])
    (at_input,) = torch.autograd.grad(loss, z_e, retain_graph=True)
    (pull,) = torch.autograd.grad(vq_loss.sum(), z_e)
    gradient, balance = found[TaskGradient, "vq"], found[LossBalance, "vq"]
    assert isinstance(gradient, TaskGradient) and isinstance(balance, LossBalance)
    assert gradient.at_input == pytest.approx(float(at_input.norm()), rel=1e-5)
    assert balance.vq_gradient == pytest.approx(float(pull.norm()), rel=1e-5)
    assert balance.ratio == pytest.approx(0.25 * float(pull.norm() / at_input.norm()), rel=1e-5)
    assert balance.vq_loss == pytest.approx(float(vq_loss.detach().sum()), rel=1e-5)


def test_usage_equals_a_naive_count() -> None:
    model = Classifier(VectorQuantize(dim=DIM, codebook_size=16))
    task = ToyTask(model)
    found = examine(context(model, task))
    usage = found[Usage, "vq"]
    assert isinstance(usage, Usage)
    with torch.no_grad():
        indices = model.eval().vq(model.encoder(task.x))[1]
    counts = torch.bincount(indices.flatten(), minlength=16)
    share = counts[counts > 0] / counts.sum()
    assert usage.vectors == 64 * POSITIONS  # train, stop and val are the same data here: counted once
    assert usage.used == int((counts > 0).sum())
    assert usage.groups == 64
    assert usage.plug_in_perplexity == pytest.approx(float(torch.exp(-(share * share.log()).sum())), rel=1e-5)


def test_tampering_matches_tampering_by_hand() -> None:
    model = Classifier(VectorQuantize(dim=DIM, codebook_size=16, rotation_trick=False))
    task = ToyTask(model)
    found = examine(context(model, task))
    metrics = found[TaskMetrics, None]
    assert isinstance(metrics, TaskMetrics)
    model.eval()
    with torch.no_grad():
        z_e = model.encoder(task.x)
        z_q = model.vq(z_e)[0]

        def right(z: torch.Tensor) -> float:
            return float((model.head(z.mean(1)).argmax(1) == task.y).float().mean())

        assert metrics.accuracy == pytest.approx(right(z_q))
        assert metrics.bypass_accuracy == pytest.approx(right(z_e))
        assert metrics.mean_code_accuracy == pytest.approx(right(z_q.mean((0, 1)).expand_as(z_q)))
        # a mean over positions cannot tell a shuffle
        assert metrics.shuffled_accuracy == pytest.approx(metrics.accuracy)
        loss = functional.cross_entropy(model.head(z_e.mean(1)), task.y)
    assert metrics.bypass_loss == pytest.approx(float(loss), rel=1e-5)
    assert metrics.chance_accuracy == 0.25


@pytest.mark.parametrize(
    ("vq", "expected"),
    [
        (lambda: VectorQuantize(dim=DIM, codebook_size=16), (False, True, False)),
        (
            lambda: VectorQuantize(dim=DIM, codebook_size=16, learnable_codebook=True, ema_update=False),
            (True, False, True),
        ),
        (lambda: NoEstimator("bare"), (False, False, False)),
    ],
)
def test_who_moves_the_codebook(vq: Any, expected: tuple[bool, bool, bool]) -> None:
    found = examine(context(Classifier(vq())))
    (moved,) = (e for (kind, _), e in found.items() if kind is CodebookGradient)
    assert isinstance(moved, CodebookGradient)
    assert (moved.trainable, moved.ema_owned, bool(moved.gradient)) == expected


def test_the_reference_model_channel_first() -> None:
    model = Conv2dVQClassifier(num_codes=32, dim=8)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(48, 1, 8, 8, generator=generator), torch.arange(48) % 10

    class Task(ToyTask):
        def batches(self, split: str) -> Iterator[Any]:
            return zip(x.split(16), y.split(16), strict=True)

        def losses(self, model: nn.Module, batch: Any) -> Losses:
            out = model(batch[0])
            task = functional.cross_entropy(out["logits"], batch[1])
            return Losses(task=task, vq=out["vq_loss"]["vq"], logits=out["logits"], labels=batch[1])

    found = examine(context(model, Task(model)))
    path, usage, match = found[GradientPath, "vq"], found[Usage, "vq"], found[DataMatch, "vq"]
    assert isinstance(path, GradientPath) and path.estimator == "straight-through"
    assert isinstance(usage, Usage) and usage.vectors == 48 * 16
    with torch.no_grad():
        z_e = model.eval().encoder(x).permute(0, 2, 3, 1).reshape(-1, 8).numpy()
    assert isinstance(match, DataMatch)
    assert match.data_rms == pytest.approx(float(np.sqrt(np.mean(z_e**2))), rel=1e-4)
    position = found[PositionInformation, "vq"]
    assert isinstance(position, PositionInformation) and position.positions == 16
    vectors = z_e.reshape(48, 16, 8)
    middle = z_e.mean(axis=0)
    between = sum(48 * ((vectors[:, p].mean(axis=0) - middle) ** 2).sum() for p in range(16))
    share = between / ((z_e - middle) ** 2).sum()
    assert position.position_share == pytest.approx(share, rel=1e-3) and 0 < share < 1


def test_samples_are_counted_where_there_are_no_labels() -> None:
    class Unlabelled(ToyTask):
        def losses(self, model: nn.Module, batch: Any) -> Losses:
            found = super().losses(model, batch)
            return Losses(task=found.task, vq=found.vq)

    model = Classifier(VectorQuantize(dim=DIM, codebook_size=16))
    bare, labelled = (context(model, task(model)).scored["val"] for task in (Unlabelled, ToyTask))
    assert (bare.samples, bare.labels) == (labelled.samples, None)
    assert bare.loss == pytest.approx(labelled.loss)
