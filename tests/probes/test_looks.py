"""Passes over the training batches that many probes share, and the gradients in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from processes import python
from torch import nn

from vqdoctor.capture.pulls import Pulls, leading_to
from vqdoctor.capture.step import Steps
from vqdoctor.models.task import Losses
from vqdoctor.models.untouched import TouchedError, untouched
from vqdoctor.probes.model import _looks
from vqdoctor.probes.model._looks import Looking, shared


class Context:
    """A context with two batches, which counts its passes."""

    def __init__(self) -> None:
        self.first_batches, self.looked, self.passes = [1, 2], {}, 0  # type: ignore[var-annotated]

    def steps(self, count: int | None = None) -> Iterator[Steps]:
        for _ in range(count or 2):
            self.passes += 1
            torch.manual_seed(self.passes)
            model = nn.Linear(2, 1)
            losses = Losses(task=model(torch.ones(1, 2)).sum())
            yield Steps({}, Pulls(model=model, losses=losses, at=()), [])


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(_looks, "_LOOKS", [])
    return Context()


def counts(context: Any) -> Looking[list[float]]:
    seen = []
    while (yield None) is not None:
        seen.append(float(torch.rand(())))
    return seen


def test_all_looks_see_the_same_passes_as_if_each_were_alone(context: Any) -> None:
    one, other = shared()(counts), shared()(counts)
    assert one.at(context) == other.at(context) and len(one.at(context)) == 2
    assert context.passes == 2
    alone = Context()
    _looks._run(alone, [other], alone.steps())  # type: ignore[arg-type]
    assert alone.looked[other] == one.at(context)


def test_a_look_that_fails_costs_no_other_look_its_result(context: Any) -> None:
    @shared()
    def broken(_: Any) -> Looking[None]:
        yield None
        raise ValueError("of this look alone")

    sound = shared()(counts)
    assert len(sound.at(context)) == 2
    for _ in range(2):
        with pytest.raises(ValueError, match="of this look alone"):
            broken.at(context)
    assert context.passes == 2


def test_a_look_that_needs_more_batches_has_passes_of_its_own(context: Any) -> None:
    long, short = shared(passes=5)(counts), shared(passes=2)(counts)
    assert len(long.at(context)) == 5 and context.passes == 5
    assert len(short.at(context)) == 2 and context.passes == 7


def test_a_context_that_a_look_yields_lasts_for_the_next_pass_alone(context: Any) -> None:
    events: list[str] = []

    @contextmanager
    def noted() -> Iterator[None]:
        events.append(f"in at {context.passes}")
        yield
        events.append(f"out at {context.passes}")

    @shared()
    def around(_: Any) -> Looking[None]:
        yield None
        yield noted()
        return None

    around.at(context)
    assert events == ["in at 1", "out at 2"]


class Stopped(torch.autograd.Function):
    """Passes no gradient, as a custom function may."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> None:
        return None


@pytest.mark.parametrize("stopped", [False, True])
def test_the_graph_tells_the_parameters_as_a_backward_pass_would(stopped: bool) -> None:
    model = nn.ModuleDict({"first": nn.Linear(3, 3), "second": nn.GRU(3, 4), "beside": nn.Linear(3, 4)})
    parameters = dict(model.named_parameters())
    hidden = model["first"](torch.randn(5, 2, 3))
    z_e = model["second"](Stopped.apply(hidden) if stopped else hidden)[0].relu()
    found = torch.autograd.grad(z_e.sum(), list(parameters.values()), allow_unused=True, retain_graph=True)
    wanted = {name for name, gradient in zip(parameters, found, strict=True) if gradient is not None}
    assert leading_to(z_e, parameters) == wanted
    assert ("first.weight" in wanted) is not stopped and "beside.weight" not in wanted
    assert leading_to(z_e.detach(), parameters) == set()


def test_gradients_at_once_are_those_of_one_at_a_time() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    z_e = model[:2](torch.randn(6, 3))
    out = model[2](z_e)
    losses = Losses(task=out.square().mean(), vq=z_e.abs().mean())
    pulls = Pulls(model=model, losses=losses, at=(z_e,))
    assert losses.vq is not None
    for loss, at in ((losses.task, z_e), (losses.vq, z_e), (losses.task, model[0].weight), (out.sum(), z_e)):
        (wanted,) = torch.autograd.grad(loss, at, retain_graph=True)
        found = pulls.of(loss, at)
        assert found is not None
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert pulls.of(losses.vq, out) is None and pulls.of(None, z_e) is None
    assert pulls.of_task.keys() == dict(model.named_parameters()).keys()
    pulls.forget()
    assert pulls.of(losses.task, z_e) is not None


def test_an_optimizer_is_built_without_torchs_compiler() -> None:
    code = (
        "import sys, torch\nfrom vqdoctor.models.compiler import without_compiler\n"
        "p = [torch.nn.Parameter(torch.ones(2))]\n"
        "with without_compiler(): one = torch.optim.Adam(p)\n"
        "print('torch._dynamo' in sys.modules, end=' ')\n"
        "other = torch.optim.Adam(p)\n"
        "print('torch._dynamo' in sys.modules, one.param_groups[0]['params'][0] is p[0])\n"
    )
    assert python("-c", code, check=True).stdout == "False True True\n"


@pytest.mark.parametrize("how", ["in place", "through data", "row by row", "by numpy"])
def test_a_parameter_that_is_written_is_seen_though_its_copy_waited(how: str) -> None:
    model = nn.Linear(64, 64)
    with pytest.raises(TouchedError, match="weight"), untouched(model, seed=0), torch.no_grad():
        if how == "in place":
            model.weight.add_(1e-3)
        elif how == "through data":
            model.weight.data = model.weight.data + 1.0
        elif how == "row by row":
            model.weight.data[3, 4] = 0.5
        else:
            model.weight.numpy()[5] = 0.5
