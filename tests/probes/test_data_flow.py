"""What stands before and behind a VQ layer is what autograd says, in whatever order it is registered."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import pytest
import torch
from live_models import live
from torch import nn
from torch.nn import functional

from vqdoctor.core.evidence import TaskGradient
from vqdoctor.models.task import Losses
from vqdoctor.probes.model import task_gradient

PARTS = ("encoder", "vq", "decoder")


class Codes(nn.Module):
    """A VQ layer with a straight-through estimator."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 4)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        indices = torch.cdist(z, self.embedding.weight).argmin(-1)
        z_q = self.embedding(indices)
        loss = functional.mse_loss(z_q, z.detach()) + 0.25 * functional.mse_loss(z_q.detach(), z)
        return z + (z_q - z).detach(), indices, loss


class Model(nn.Module):
    """An autoencoder of [B, 8], its parts registered in any order.

    `cut` is "no_grad", "detach" or "after"; `dead` puts the units of decoder or encoder out of action.
    """

    def __init__(self, order: tuple[str, ...] = PARTS, cut: str = "", dead: str = "") -> None:
        super().__init__()
        parts = {
            "encoder": nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)),
            "vq": Codes(),
            "decoder": nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 8)),
        }
        for name in order:
            self.add_module(name, parts[name])
        self.teacher = nn.Linear(8, 4)
        self.cut = cut
        if dead:
            with torch.no_grad():
                parts[dead][0].bias.fill_(-1e4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            self.teacher(x)
        with torch.set_grad_enabled(self.cut != "no_grad"):
            z_e = self.encoder(x)
        z_q, _, loss = self.vq(z_e.detach() if self.cut == "detach" else z_e)
        return self.decoder(z_q.detach() if self.cut == "after" else z_q), loss


class Task:
    vq_weight = 1.0

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))

    def model(self) -> nn.Module:
        return self._model

    def batches(self, split: str) -> Iterator[Any]:
        return iter(self.x.split(32))

    def losses(self, model: nn.Module, x: Any) -> Losses:
        rec, loss = model(x)
        return Losses(task=functional.mse_loss(rec, x), vq=loss)


def look(**options: Any) -> tuple[TaskGradient, bool]:
    """Return the gradients of a model with these options, and whether VQ102 fires."""
    torch.manual_seed(0)
    model = Model(**options)
    evidence, findings = live(model, Task(model), [task_gradient], "VQ102")
    return evidence["task-gradient"], "VQ102" in findings


@pytest.mark.parametrize("order", list(permutations(PARTS)))
def test_the_order_of_registration_is_no_data_flow(order: tuple[str, ...]) -> None:
    healthy, accused = look(order=order)
    assert not accused and healthy.joined and healthy.before and healthy.after
    assert (healthy.before, healthy.after) == pytest.approx((look()[0].before, look()[0].after))
    for cut in ("no_grad", "detach"):
        found, accused = look(order=order, cut=cut)
        assert accused and found.before == 0 and found.joined is False


def test_a_cut_behind_the_layer_has_no_path_to_its_output() -> None:
    found, accused = look(cut="after")
    assert accused and found.at_output is None


@pytest.mark.parametrize("dead", ["decoder", "encoder"])
def test_units_out_of_action_are_no_cut(dead: str) -> None:
    found, accused = look(dead=dead)
    assert not accused and found.joined and found.after
    assert found.at_output == 0 if dead == "decoder" else found.at_output


def test_a_module_that_z_e_does_not_depend_on_is_no_encoder() -> None:
    """The teacher runs before the layer, under no_grad, and its parameters ask for a gradient."""
    torch.manual_seed(0)
    model = Model(cut="no_grad")
    model.encoder.requires_grad_(False)
    evidence, findings = live(model, Task(model), [task_gradient], "VQ102")
    assert evidence["task-gradient"].before is None and not findings
