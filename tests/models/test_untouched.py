"""Copies of models that resist copying, and the proof that nothing of the original changed."""

from __future__ import annotations

import random
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from vector_quantize_pytorch import VectorQuantize

from vqdoctor.core.errors import UserError
from vqdoctor.models.untouched import TouchedError, seed_all, untouched, unwrapped_name, working_copy


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 4)
        self.vq = VectorQuantize(dim=4, codebook_size=8)
        self.decoder = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.vq(self.encoder(x))[0])


@pytest.fixture
def one_process(tmp_path: Any) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def equal_states(one: nn.Module, other: nn.Module) -> bool:
    names = one.state_dict().keys()
    return names == other.state_dict().keys() and all(
        torch.equal(one.state_dict()[name], other.state_dict()[name]) for name in names
    )


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")  # which needs no compiler to be imported


@pytest.mark.parametrize("wrap", [compiled, nn.DataParallel])
def test_a_wrapper_around_the_model_is_left_behind(wrap: Any) -> None:
    model = Model()
    twin = working_copy(wrap(model), training=True)
    assert type(twin) is Model
    assert equal_states(twin, model)
    assert twin.encoder.weight is not model.encoder.weight


def test_ddp_is_left_behind_and_a_loss_may_still_reach_into_it(one_process: None) -> None:
    model = Model()
    wrapped = nn.parallel.DistributedDataParallel(model)
    twin = working_copy(wrapped, training=False)
    assert type(twin) is Model and twin.module is twin
    assert equal_states(twin, model)
    assert unwrapped_name(wrapped, "module.vq._codebook.embed") == "vq._codebook.embed"


def test_a_compiled_child_is_left_behind() -> None:
    model = Model()
    model.vq = compiled(model.vq)
    model.decoder.compile(backend="eager")
    twin = working_copy(model, training=True)
    assert type(twin.vq) is VectorQuantize
    assert twin.decoder._compiled_call_impl is None and model.decoder._compiled_call_impl is not None
    assert unwrapped_name(model, "vq._orig_mod._codebook.embed") == "vq._codebook.embed"
    assert twin(torch.randn(2, 5, 3)).shape == (2, 5, 3)


def test_old_weight_norm_is_copied() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.utils.weight_norm(nn.Linear(3, 4))
    x = torch.randn(2, 3)
    expected = model(x)  # leaves a computed weight, which is no leaf, in the module
    twin = working_copy(model, training=True)
    assert torch.equal(twin(x), expected)
    twin.weight_v.data.zero_()
    assert torch.equal(model(x), expected)


class Locked(Model):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def test_what_cannot_be_copied_is_built_anew() -> None:
    model = Locked()
    twin = working_copy(model, training=False, rebuild=Locked)
    assert equal_states(twin, model) and twin is not model


@pytest.mark.parametrize("rebuild", [None, "same"])
def test_what_can_neither_be_copied_nor_built_is_the_users_error(rebuild: str | None) -> None:
    model = Locked()
    with pytest.raises(UserError, match="cannot be copied"):
        working_copy(model, training=False, rebuild=None if rebuild is None else lambda: model)


def test_all_random_states_are_seeded_inside_and_restored_outside() -> None:
    def draw() -> tuple[float, float, float]:
        return float(torch.rand(())), random.random(), float(np.random.rand())

    model = Model()
    seed_all(5)
    first = draw()
    seed_all(5)
    with untouched(model, seed=1):
        inside = draw()
    assert draw() == first
    with untouched(model, seed=1):
        assert draw() == inside


def test_the_random_states_are_restored_when_an_examination_fails() -> None:
    model = Model()
    seed_all(5)
    states = torch.get_rng_state(), random.getstate()
    with pytest.raises(ZeroDivisionError), untouched(model, seed=1):
        random.random()
        raise ZeroDivisionError
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]


@pytest.mark.parametrize("attribute", ["temperature", "cache"])
def test_a_plain_attribute_that_changes_is_noticed(attribute: str) -> None:
    model = Model()
    model.temperature, model.cache = 1.0, torch.zeros(2)
    changed: dict[str, Any] = {"temperature": 0.5, "cache": torch.ones(2)}
    with pytest.raises(TouchedError, match=attribute), untouched(model, seed=0):
        setattr(model, attribute, changed[attribute])


def test_an_optimizer_still_knows_its_parameters() -> None:
    model = Model().train()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(2, 5, 3)).sum().backward()
    optimizer.step()
    before = {key: value.clone() for key, value in optimizer.state[model.encoder.weight].items()}
    with untouched(model, seed=0):
        working_copy(model, training=True)(torch.randn(2, 5, 3)).sum().backward()
    after = optimizer.state[model.encoder.weight]
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert optimizer.param_groups[0]["params"][0] is model.encoder.weight


def test_a_copy_takes_memory_where_it_is_written_and_the_original_keeps_its_own() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    model[1].bias.requires_grad_(False)
    before, place = model[0].weight.detach().clone(), model[0].weight.data_ptr()
    twin: Any = working_copy(model, training=True)
    assert twin[1].weight is twin[0].weight and not twin[1].bias.requires_grad
    assert torch._C._is_cow_tensor(twin[0].weight)
    twin(torch.ones(2, 4)).sum().backward()
    assert torch._C._is_cow_tensor(twin[0].weight)  # passes write nothing
    torch.optim.SGD(twin.parameters(), 0.1).step()
    twin[0].bias.data[:2] = 7.0
    twin[0].bias.detach().numpy()[2:] = 8.0
    assert torch.equal(model[0].weight, before)
    assert not model[0].bias.detach().eq(7.0).any() and not model[0].bias.detach().eq(8.0).any()
    del twin
    with torch.no_grad():
        model[0].weight.add_(1.0)
    assert model[0].weight.data_ptr() == place


def test_a_parameter_that_processes_share_stays_shared() -> None:
    model = nn.Linear(4, 4).share_memory()
    twin = working_copy(model, training=True)
    assert torch.equal(model.weight, twin.weight)
    assert model.weight.is_shared() and not torch._C._is_cow_tensor(model.weight)


def test_a_parameter_in_memory_of_others_is_copied_at_once(tmp_path: Path) -> None:
    """As in a model whose weights are a mapped file's, or numpy's: torch lets these not wait."""
    model = nn.Linear(4, 4)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    model.load_state_dict(torch.load(tmp_path / "model.pt", mmap=True), assign=True)
    model.bias = nn.Parameter(torch.from_numpy(np.ones(4, dtype=np.float32)))
    twin: Any = working_copy(model, training=True)
    assert torch.equal(twin.weight, model.weight) and torch.equal(twin.bias, model.bias)
    with torch.no_grad():
        twin.weight.add_(1.0)
        twin.bias.add_(1.0)
    assert not torch.equal(twin.weight, model.weight) and model.bias.eq(1.0).all()
