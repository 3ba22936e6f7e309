"""Tensors that are not read are named: DTensors in parts, quantized, sparse and meta ones."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hostile_files import codebook_state
from processes import python
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from vqdoctor.checkpoint import open_checkpoint
from vqdoctor.core.exit_codes import ExitCode


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Any]:
    """A group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_dtensor_that_is_whole_is_read(mesh: Any, zipped: bool, tmp_path: Path) -> None:
    state = codebook_state()
    places = [Replicate(), Shard(0), Replicate()]
    spread = {k: distribute_tensor(t, mesh, [p]) for (k, t), p in zip(state.items(), places, strict=True)}
    torch.save({"model": spread}, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    checkpoint = open_checkpoint(tmp_path / "a.pt")
    assert not checkpoint.skipped and not checkpoint.dangerous
    for key, tensor in state.items():
        assert (checkpoint.tensors[f"model.{key}"].read() == tensor.numpy()).all()


def test_a_part_of_a_dtensor_is_named_and_in_the_headline(mesh: Any, tmp_path: Path) -> None:
    part = DTensor.from_local(torch.ones(4, 8), mesh, [Shard(0)], shape=torch.Size((16, 8)), stride=(8, 1))
    torch.save({"model": {"vq.embedding": part, "a.weight": torch.ones(2, 2)}}, tmp_path / "a.pt")
    checkpoint = open_checkpoint(tmp_path / "a.pt")
    assert list(checkpoint.tensors) == ["model.a.weight"]
    assert checkpoint.skipped == {"model.vq.embedding": "its parts lie in the files of other processes"}
    done = python("-m", "vqdoctor", "inspect", tmp_path / "a.pt")
    assert done.returncode == ExitCode.INCOMPLETE
    headline = done.stdout.splitlines()[0]
    assert "no VQ layer can be read: model.vq.embedding: its parts lie" in headline


def test_the_other_kinds_are_named(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)
        odd = {"q": quantized, "sparse": torch.eye(3).to_sparse(), "meta": torch.ones(2, device="meta")}
        torch.save({"vq": {"odd": odd, "plain": torch.ones(2)}}, tmp_path / "a.pt")
    skipped = open_checkpoint(tmp_path / "a.pt").skipped
    assert set(skipped) == {"vq.odd.q", "vq.odd.sparse", "vq.odd.meta"}
    assert set(skipped.values()) == {"its type is not read"}
