"""The VQ loss of a step, with what a training plan adds at the layers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import Digits, reference_layer
from torch.nn import functional

from vqdoctor.capture.layer import Watched, watching
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.engine.retrain import retrain
from vqdoctor.models.task import Losses
from vqdoctor.training.schedule import balanced_weight
from vqdoctor.training.treatment import grafts
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


class Table(torch.nn.Module):
    """A codebook that a gradient moves; what it looks up keeps the graph of the codes, with no estimator."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = torch.nn.Parameter(torch.randn(16, 4))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.entries[torch.cdist(z, self.entries).argmin(-1)]


class Rows(torch.nn.Module):
    """An autoencoder of rows of 8 numbers with levels of codes, which computes the VQ loss itself."""

    def __init__(self, levels: int, *, estimator: bool = False) -> None:
        super().__init__()
        self.estimator = estimator
        self.encoder = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
        self.levels = torch.nn.ModuleList(Table() for _ in range(levels))
        self.decoder = torch.nn.Linear(4, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rest = self.encoder(x)
        whole, vq = torch.zeros_like(rest), torch.zeros(())
        for level in self.levels:
            q = level(rest)
            vq = vq + functional.mse_loss(q, rest.detach()) + 0.25 * functional.mse_loss(rest, q.detach())
            q = rest + (q - rest).detach() if self.estimator else q
            rest, whole = rest - q, whole + q
        return self.decoder(whole), vq


@dataclass
class RowsTask:
    estimator: bool = False
    vq_weight = 1.0

    def model(self) -> Rows:
        return Rows(1, estimator=self.estimator)

    def batches(self, split: str) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        mixing = torch.randn(4, 8, generator=generator)
        return list((torch.randn(512, 4, generator=generator) @ mixing).split(64))

    def optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), lr=3e-3)

    def losses(self, model: torch.nn.Module, x: torch.Tensor) -> Losses:
        out, vq = model(x)
        return Losses(task=functional.mse_loss(out, x), vq=vq)


@pytest.mark.parametrize("kind", ["straight-through", "rotation"])
def test_behind_an_estimator_the_vq_loss_keeps_the_gradient_that_it_has_in_the_source(kind: Any) -> None:
    torch.manual_seed(0)
    model, task = Rows(2), RowsTask()
    template = reference_layer(Digits().model())
    layers = tuple(
        replace(template, model=model, path=f"levels.{i}", view=replace(template.view, name=str(i)))
        for i in range(2)
    )
    weights = list(model.parameters())

    def gradients(put: Any) -> tuple[Losses, list[torch.Tensor | None], list[torch.Tensor]]:
        with watching(layers, put, keep_graph=True) as watched:
            found = task.losses(model, task.batches("train")[0])
        vq = found.vq if put is None else put.behind(found.vq)
        grads = torch.autograd.grad(vq, weights, retain_graph=True, allow_unused=True)
        return replace(found, vq=vq), list(grads), [layer.calls(watched)[0].z_e for layer in layers]

    plan = TrainingPlan(estimators={"0": kind, "1": kind})
    (own, as_is, _), (treated, kept, z_e) = gradients(None), gradients(grafts(plan))
    torch.testing.assert_close(treated.vq, own.vq)
    torch.testing.assert_close(kept, as_is)
    assert balanced_weight(treated.task, treated.vq, z_e) is not None


def test_a_retraining_is_the_same_whether_it_puts_the_estimator_behind_or_the_source_does(
    tmp_path: Path,
) -> None:
    """The codebook term passed to z_e through the one put behind, and drove z_e away from the codes."""
    torch.manual_seed(0)
    path = tmp_path / "model.pt"
    torch.save(RowsTask().model().state_dict(), path)
    losses = []
    for in_source in (False, True):
        user_model: Any = UserModel(task=RowsTask(in_source))
        only = ("data-init",) if in_source else ("data-init", "straight-through")
        settings = Settings(epochs=8, only=only, vq_weight=1.0, keep_worse=True)
        report = retrain(path, tmp_path / f"{in_source}.pt", user_model=user_model, settings=settings)
        assert report.retraining is not None
        assert bool(report.retraining.plan.estimators) == (not in_source)
        losses.append([(row.task_loss, row.vq_loss) for row in report.retraining.epochs])
    torch.testing.assert_close(*map(torch.tensor, losses), rtol=1e-3, atol=0)
