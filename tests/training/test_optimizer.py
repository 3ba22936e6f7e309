"""The optimizer of a retraining: the task's, the file's, or Adam."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vqdoctor.checkpoint import open_checkpoint
from vqdoctor.core.errors import UserError
from vqdoctor.layouts import find_quantizers
from vqdoctor.saved.training import SavedTraining
from vqdoctor.training.optimizer import Optimizers, SavedRecipe, optimizers_of

Make = Callable[[nn.Module], torch.optim.Optimizer]


class Model(nn.Module):
    """An encoder, a codebook and a decoder, each of its own shape."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(5, 4)
        self.vq = nn.Embedding(16, 4)
        self.decoder = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z_e = self.encoder(x)
        codes = self.vq(torch.cdist(z_e, self.vq.weight).argmin(1))
        out: torch.Tensor = self.decoder(z_e + codes)
        return out


def saved_by(make: Make, folder: Path, **more: Any) -> SavedRecipe | None:
    """Return what is read from a file that a training with this optimizer wrote."""
    model = Model()
    optimizer = make(model)
    model(torch.randn(8, 5)).square().sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), **more}
    torch.save(state, folder / "file.pt")
    opened = open_checkpoint(folder / "file.pt")
    return SavedRecipe.of(SavedTraining(checkpoint=opened), find_quantizers(opened.tensors).views)


def chosen(task: Any, model: nn.Module, recipe: SavedRecipe | None) -> tuple[torch.optim.Optimizer, str]:
    """Return the one optimizer of a training, and the line that says which it is."""
    found = optimizers_of(task, model, recipe)
    assert found.further == ()
    return found.main, found.told


def settings(optimizer: torch.optim.Optimizer) -> list[tuple[list[tuple[int, ...]], dict[str, Any]]]:
    """Return each group's shapes and settings."""
    left = ("params", "foreach", "fused", "capturable", "differentiable", "maximize", "initial_lr")
    return [
        (
            [tuple(p.shape) for p in group["params"]],
            {name: value for name, value in group.items() if name not in left},
        )
        for group in optimizer.param_groups
    ]


KINDS: dict[str, Make] = {
    "Adam": lambda m: torch.optim.Adam(m.parameters(), lr=1e-4, betas=(0.5, 0.9), weight_decay=1e-3),
    "AdamW": lambda m: torch.optim.AdamW(m.parameters(), lr=3e-4, betas=(0.8, 0.99), weight_decay=0.05),
    "NAdam": lambda m: torch.optim.NAdam(m.parameters(), lr=3e-4),
    "SGD": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
    "RMSprop": lambda m: torch.optim.RMSprop(m.parameters(), lr=5e-4, alpha=0.95),
    "Adagrad": lambda m: torch.optim.Adagrad(m.parameters(), lr=0.02),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_as_the_file_says(kind: str, tmp_path: Path) -> None:
    recipe = saved_by(KINDS[kind], tmp_path)
    model = Model()
    optimizer, told = chosen(object(), model, recipe)
    own = KINDS[kind](model)
    assert type(optimizer) is type(own)
    assert settings(optimizer) == settings(own)
    assert told.startswith(f"trained with {kind}, learning rate ") and told.endswith(", as saved in the file")


def test_groups_keep_their_parameters_and_their_settings(tmp_path: Path) -> None:
    def grouped(model: nn.Module) -> torch.optim.Optimizer:
        named = dict(model.named_parameters())
        slow = [named.pop("vq.weight")]
        return torch.optim.Adam(
            [{"params": list(named.values()), "lr": 1e-3}, {"params": slow, "lr": 1e-4}], lr=1.0
        )

    recipe, model = saved_by(grouped, tmp_path), Model()
    assert recipe is not None
    assert settings(recipe.build(model)) == settings(grouped(model))


def test_a_schedule_that_has_ended_starts_again_at_its_highest_rate(tmp_path: Path) -> None:
    def ended(model: nn.Module) -> torch.optim.Optimizer:
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-4)
        optimizer.param_groups[0].update(lr=0.0, initial_lr=2e-4)
        return optimizer

    recipe = saved_by(ended, tmp_path)
    assert recipe is not None and recipe.build(Model()).param_groups[0]["lr"] == 2e-4


def test_a_rate_that_did_the_damage_is_not_taken(tmp_path: Path) -> None:
    recipe = saved_by(lambda m: torch.optim.Adam(m.parameters(), lr=0.3), tmp_path)
    optimizer, told = chosen(object(), Model(), recipe)
    assert optimizer.param_groups[0]["lr"] == 1e-3
    assert "0.001 in place of its learning rate 0.3, which is above 0.01" in told


def test_a_kind_of_others_or_no_optimizer_is_adam(tmp_path: Path) -> None:
    def lion(model: nn.Module) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        optimizer.param_groups[0] = {
            "params": optimizer.param_groups[0]["params"],
            "lr": 1e-4,
            "betas": (0.9, 0.99),
        }
        optimizer.step = lambda closure=None: None  # type: ignore[method-assign, misc, assignment]
        return optimizer

    assert saved_by(lion, tmp_path) is None
    optimizer, told = chosen(object(), Model(), None)
    assert type(optimizer) is torch.optim.Adam and optimizer.param_groups[0]["lr"] == 1e-3
    assert (
        told
        == "trained with Adam, learning rate 0.001, since neither the task nor the file names an optimizer"
    )


def test_the_tasks_own_comes_first(tmp_path: Path) -> None:
    class Own:
        def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
            return torch.optim.SGD(model.parameters(), lr=0.5)

    recipe = saved_by(KINDS["Adam"], tmp_path)
    optimizer, told = chosen(Own(), Model(), recipe)
    assert type(optimizer) is torch.optim.SGD and told.endswith("the task's own")


def test_a_model_that_is_frozen_is_refused() -> None:
    with pytest.raises(UserError, match="unfreeze"):
        chosen(object(), Model().requires_grad_(False), None)


class Rivals(nn.Module):
    """A model, and a discriminator of its output."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.judge = nn.Linear(3, 1)


class Gan:
    """A task with two optimizers."""

    def optimizer(self, rivals: Rivals) -> list[torch.optim.Optimizer]:
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (rivals.model, rivals.judge)]


def test_each_optimizer_takes_its_step_on_its_own_loss() -> None:
    torch.manual_seed(0)
    rivals, x = Rivals(), torch.randn(8, 5)
    optimizers = optimizers_of(Gan(), rivals)  # type: ignore[arg-type]
    assert optimizers.told.endswith("the task's own, and 1 for further losses")
    out = rivals.model(x)
    ours, theirs = -rivals.judge(out).mean(), rivals.judge(out.detach()).mean()
    wanted = [
        torch.autograd.grad(ours, rivals.model.decoder.weight, retain_graph=True)[0],
        torch.autograd.grad(theirs, rivals.judge.weight, retain_graph=True)[0],
    ]
    weights = (rivals.model.decoder.weight, rivals.judge.weight)
    before = [weight.detach().clone() for weight in weights]
    optimizers.step(ours, (theirs,), ())
    for weight, old, gradient in zip(weights, before, wanted, strict=True):
        torch.testing.assert_close(weight.detach(), old - 0.1 * gradient)
    optimizers.set_rates(0.5)
    assert [one.param_groups[0]["lr"] for one in optimizers.all] == [0.05, 0.05]


def test_losses_that_do_not_fit_the_optimizers_are_one_clear_line() -> None:
    rivals = Rivals()
    optimizers = optimizers_of(Gan(), rivals)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"2 optimizers, and Losses\.further holds 0 losses"):
        optimizers.step(rivals.judge.weight.sum(), (), ())
    out = rivals.judge(rivals.model(torch.randn(8, 5))).mean()
    with pytest.raises(UserError, match="shares its graph"):
        optimizers.step(out, (out,), ())
    with pytest.raises(UserError, match="returns a str"):
        optimizers_of(type("Odd", (), {"optimizer": lambda self, model: ["Adam"]})(), rivals)


def test_the_state_of_all_comes_back() -> None:
    one, other = (optimizers_of(Gan(), Rivals()) for _ in range(2))  # type: ignore[arg-type]
    one.set_rates(0.25)
    other.load_state_dict(one.state_dict())
    assert [o.param_groups[0]["lr"] for o in other.all] == [0.025, 0.025]
    assert isinstance(other, Optimizers)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_an_exempt_parameter_keeps_its_rate_and_loses_the_decay(kind: type[torch.optim.Optimizer]) -> None:
    """A code without a gradient stays where it is; all else is trained as before."""
    kept, rest, other = (torch.nn.Parameter(torch.ones(3)) for _ in range(3))
    groups = [
        {"params": [kept, rest], "lr": 0.1, "weight_decay": 0.5},
        {"params": [other], "lr": 0.2, "weight_decay": 0.0},
    ]
    both = Optimizers(main=kind(groups))
    both.exempt([kept])
    assert both.rates == [[0.1, 0.2, 0.1]]
    (kept * 0 + rest * 0 + other * 0).sum().backward()
    both.main.step()
    assert torch.equal(kept, torch.ones(3)) and bool((rest < 1).all()) and torch.equal(other, torch.ones(3))
    alone = Optimizers(main=kind([kept], lr=0.1, weight_decay=0.5))
    alone.exempt([kept])
    assert len(alone.main.param_groups) == 1 and alone.main.param_groups[0]["weight_decay"] == 0


def test_names_of_parameters_go_with_them() -> None:
    model = Model()
    named = Optimizers(main=torch.optim.AdamW(model.named_parameters(), lr=0.1))
    assert named.exempt([model.vq.weight])
    rest, own = named.main.param_groups
    assert (own["param_names"], own["weight_decay"]) == (["vq.weight"], 0.0)
    assert own["params"] == [model.vq.weight] and len(rest["params"]) == len(rest["param_names"]) == 4
    assert "vq.weight" not in rest["param_names"]


def test_an_optimizer_with_a_schedule_on_its_hooks_stays_as_it_is() -> None:
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.register_step_post_hook(lambda *_: schedule.step())
    hooked = Optimizers(main=optimizer)
    assert not hooked.exempt([model.vq.weight])
    hooked.step(model(torch.randn(8, 5)).square().sum(), (), ())
    assert [(len(group["params"]), group["lr"]) for group in optimizer.param_groups] == [(5, 0.05)]


@pytest.mark.parametrize(
    ("kind", "rates", "lowered"),
    [("Adam", (0.3, 1e-4), (1e-3, 1e-4)), ("AdamW", (2e-3,), (1e-3,)), ("SGD", (0.5, 0.05), (0.1, 0.05))],
)
def test_rates_above_the_usual_one_are_taken_down_to_it(
    kind: str, rates: tuple[float, ...], lowered: tuple[float, ...]
) -> None:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    found = Optimizers(main=getattr(torch.optim, kind)(groups), told="trained with it")
    found.lower_rates()
    assert found.rates == [list(lowered)] == [[group["lr"] for group in found.main.param_groups]]
    assert found.told == f"trained with it; learning rate {lowered[0]:g} in place of {rates[0]:g}"
    found.set_rates(0.5)
    assert found.main.param_groups[0]["lr"] == lowered[0] / 2
