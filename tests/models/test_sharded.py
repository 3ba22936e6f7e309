"""A model that `fully_shard` has parted: whole again, or refused in one sentence."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from rank_layers import HomeMade, Net
from torch import distributed, nn

from vqdoctor.core.errors import UserError
from vqdoctor.models.process_group import as_all_processes, as_single_process
from vqdoctor.models.sharded import gathered, is_sharded
from vqdoctor.models.untouched import working_copy

fsdp = pytest.importorskip("torch.distributed.fsdp")
needs_fsdp2 = pytest.mark.skipif(not hasattr(fsdp, "fully_shard"), reason="this torch has no fully_shard")


@pytest.fixture
def group() -> Iterator[None]:
    """The process group of a training with one process."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def parted() -> tuple[nn.Module, nn.Module]:
    """A model and its parted twin, whose encoder and decoder are tied to others."""
    torch.manual_seed(0)
    plain = Net(HomeMade())
    torch.manual_seed(0)
    model = Net(HomeMade())
    for one in (plain, model):
        one.again = one.decoder
    fsdp.fully_shard(model.encoder)
    return plain, fsdp.fully_shard(model)


@needs_fsdp2
@pytest.mark.usefixtures("group")
def test_a_gathered_model_is_the_one_that_was_parted() -> None:
    plain, model = parted()
    assert is_sharded(model) and not is_sharded(plain)
    whole = gathered(model)
    assert type(whole) is Net and type(whole.encoder) is nn.Sequential and not is_sharded(whole)
    assert whole.again.weight is whole.decoder.weight
    copy = working_copy(whole, training=True)
    copy.load_state_dict(plain.state_dict())
    x = torch.randn(4, 5, 6)
    for expected, found in zip(plain.train()(x), copy(x), strict=True):
        assert torch.equal(expected, found)
    copy(x)[0].sum().backward()
    assert all(isinstance(p.grad, torch.Tensor) for p in copy.encoder.parameters())


@needs_fsdp2
@pytest.mark.usefixtures("group")
def test_a_copy_of_a_part_is_refused() -> None:
    _, model = parted()
    with pytest.raises(UserError, match=r"the model is sharded .*: examine its checkpoint"):
        working_copy(model, training=True)


@pytest.mark.usefixtures("group")
def test_a_single_process_is_in_a_group_of_its_own() -> None:
    whole = distributed.GroupMember.WORLD
    with as_single_process():
        own = distributed.GroupMember.WORLD
        assert own is not whole and distributed.get_world_size() == 1
        with as_single_process():
            assert distributed.GroupMember.WORLD is own
        with as_all_processes():
            assert distributed.GroupMember.WORLD is whole
    assert distributed.GroupMember.WORLD is whole


def test_a_model_that_is_not_parted_stays() -> None:
    model = nn.Linear(2, 2)
    assert gathered(model) is model and type(model) is nn.Linear
