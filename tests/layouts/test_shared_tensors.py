"""Layers that use one and the same codebook are one view; those that only look alike are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from vector_quantize_pytorch import ResidualVQ, VectorQuantize

from vqdoctor.checkpoint import open_checkpoint
from vqdoctor.core.errors import UserError
from vqdoctor.layouts import find_quantizers

EMBEDDING = "quantize.embedding.weight"


@dataclass
class Stored:
    """A tensor that says where it is stored."""

    values: np.ndarray[Any, Any]
    storage_id: str
    offset: int = 0
    strides: tuple[int, ...] = (4, 1)
    dtype: str = "float32"

    @property
    def shape(self):
        return self.values.shape

    def read(self):
        return self.values


def saved(module, path):
    torch.save(module.state_dict(), path)
    return open_checkpoint(path).tensors


@pytest.fixture
def shared():
    torch.manual_seed(0)
    rvq = ResidualVQ(dim=8, codebook_size=16, num_quantizers=3, shared_codebook=True)
    rvq(torch.randn(2, 40, 8))
    return rvq


def test_a_shared_codebook_is_one_view_that_names_its_levels(shared, tmp_path):
    (view,) = find_quantizers(saved(shared, tmp_path / "shared.pt")).views
    assert (view.name, view.shared_with) == ("layers.0", ("layers.1", "layers.2"))
    np.testing.assert_array_equal(view.codebook, shared.layers[2].codebook.numpy())


def test_the_user_may_name_any_of_its_levels(shared, tmp_path):
    tensors = saved(shared, tmp_path / "shared.pt")
    for layer in ("layers.0", "layers.2", "layers"):
        (view,) = find_quantizers(tensors, layer=layer).views
        assert view.name == "layers.0"
    (view,) = find_quantizers(tensors, codebook_key="layers.2._codebook.embed").views
    assert view.name == "layers.2"
    with pytest.raises(UserError, match=r"no VQ layer 'layers\.3'"):
        find_quantizers(tensors, layer="layers.3")


def test_levels_of_their_own_stay_apart(tmp_path):
    rvq = ResidualVQ(dim=8, codebook_size=16, num_quantizers=3)
    views = find_quantizers(saved(rvq, tmp_path / "own.pt")).views
    assert [(v.name, v.shared_with) for v in views] == [(f"layers.{q}", ()) for q in range(3)]


def in_safetensors(rvq, path):
    """Save as safetensors demands it: every name with a copy of its own."""
    save_file({key: value.clone() for key, value in rvq.state_dict().items()}, path)
    return open_checkpoint(path).tensors


def test_equal_copies_in_safetensors_are_one_codebook(shared, tmp_path):
    (view,) = find_quantizers(in_safetensors(shared, tmp_path / "shared.safetensors")).views
    assert (view.name, view.shared_with) == ("layers.0", ("layers.1", "layers.2"))
    assert view.copies["layers.0._codebook.embed"] == ("layers.1._codebook.embed", "layers.2._codebook.embed")
    (view,) = find_quantizers(saved(shared, tmp_path / "shared.pt")).views
    assert view.copies == {}  # one storage, which needs to be written once


def test_levels_before_their_initialisation_are_not_one_codebook(tmp_path):
    rvq = ResidualVQ(dim=8, codebook_size=16, num_quantizers=2, kmeans_init=True)
    assert not rvq.layers[0].codebook.any()
    views = find_quantizers(in_safetensors(rvq, tmp_path / "zeros.safetensors")).views
    assert [(v.name, v.shared_with) for v in views] == [("layers.0", ()), ("layers.1", ())]


def test_heads_of_one_tensor_stay_apart(tmp_path):
    vq = VectorQuantize(dim=8, codebook_size=16, heads=2, separate_codebook_per_head=True)
    views = find_quantizers(saved(nn.ModuleDict({"first": vq, "again": vq}), tmp_path / "heads.pt")).views
    assert [(v.name, v.shared_with) for v in views] == [
        ("first[head 0]", ("again[head 0]",)),
        ("first[head 1]", ("again[head 1]",)),
    ]


def test_parts_of_one_storage_are_not_one_codebook(tmp_path):
    whole = torch.randn(2, 16, 4)
    state = {f"{name}.{EMBEDDING}": whole[i] for i, name in enumerate("ab")}
    torch.save(state, tmp_path / "flat.pt")
    tensors = open_checkpoint(tmp_path / "flat.pt").tensors
    assert len({tensor.storage_id for tensor in tensors.values()}) == 1
    assert len(find_quantizers(tensors).views) == 2


@pytest.mark.parametrize(
    ("other", "views"),
    [
        ({}, 1),
        ({"storage_id": "y"}, 2),
        ({"offset": 64}, 2),
        ({"strides": (1, 16)}, 2),
        ({"dtype": "float16"}, 2),
        ({"values": np.zeros((8, 4))}, 2),
    ],
)
def test_the_very_same_elements_only(other, views):
    one = {"values": np.zeros((16, 4)), "storage_id": "x"}
    tensors = {f"a.{EMBEDDING}": Stored(**one), f"b.{EMBEDDING}": Stored(**one | other)}
    assert len(find_quantizers(tensors).views) == views


def test_one_table_behind_two_maps_is_two_codebooks(tmp_path):
    table = torch.randn(16, 4)
    maps = [nn.Linear(4, 4, bias=False).weight.data for _ in range(2)]
    state = {f"layers.{q}.frozen_codebook": table for q in range(2)}
    state |= {f"layers.{q}.code_transform.weight": weight for q, weight in enumerate(maps)}
    torch.save(state, tmp_path / "maps.pt")
    views = find_quantizers(open_checkpoint(tmp_path / "maps.pt").tensors).views
    assert [v.name for v in views] == ["layers.0", "layers.1"]
    assert not np.allclose(views[0].codebook, views[1].codebook)
