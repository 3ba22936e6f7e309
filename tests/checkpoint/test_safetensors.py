"""What the safetensors library writes is read as it reads it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile_files import SAFETENSORS_ABUSES, safetensors
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vqdoctor.checkpoint import open_checkpoint

DTYPES = [
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "uint16",
    "uint32", "uint64", "bool", "float8_e4m3fn", "float8_e5m2", "complex64",
]  # fmt: skip


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype(name: str, tmp_path: Path) -> None:
    raw = torch.randint(0, 2 if name == "bool" else 256, (6, 16), dtype=torch.uint8)
    original = raw.view(getattr(torch, name))
    save_file({"vq.embed": original}, tmp_path / "a.safetensors")
    tensor = open_checkpoint(tmp_path / "a.safetensors").tensors["vq.embed"]
    widened = original.float() if name.startswith(("bfloat16", "float8")) else original
    assert tensor.dtype == name and tensor.shape == tuple(original.shape) and tensor.is_parameter is None
    np.testing.assert_array_equal(tensor.read(), widened.numpy())
    np.testing.assert_array_equal(tensor.sample(10**6), widened.numpy().ravel())


def test_metadata_scalars_and_empty_tensors(tmp_path: Path) -> None:
    tensors = {"step": torch.tensor(7), "none": torch.empty(0, 3), "w": torch.ones(2, 2)}
    path = tmp_path / "a.safetensors"
    save_file(tensors, path, metadata={"format": "pt", "epoch": "3"})
    checkpoint = open_checkpoint(path)
    assert checkpoint.container == "safetensors" and checkpoint.bytes == path.stat().st_size
    assert checkpoint.tree["__metadata__"] == {"format": "pt", "epoch": "3"}
    assert checkpoint.tree["w"] is checkpoint.tensors["w"]
    assert set(checkpoint.tensors) == set(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(checkpoint.tensors[name].read(), tensor.numpy())
    assert len({tensor.storage_id for tensor in checkpoint.tensors.values()}) == 3
    with safe_open(path, "np") as peer:
        assert set(peer.keys()) == set(checkpoint.tensors)


def test_an_unknown_dtype_is_left_out_with_a_note(tmp_path: Path) -> None:
    entries: dict[str, Any] = {
        "a": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]},
        "b": {"dtype": "U8", "shape": [2], "data_offsets": [3, 5]},
    }
    safetensors(tmp_path / "a.safetensors", entries, b"\x01\x02\x03\x04\x05")
    checkpoint = open_checkpoint(tmp_path / "a.safetensors")
    assert checkpoint.tensors["b"].read().tolist() == [4, 5]
    assert list(checkpoint.tensors) == ["b"] and "F6_E2M3" in checkpoint.notes[0]


# Of two tensors with one name the library takes the last; which one is meant nobody can know.
@pytest.mark.parametrize("name", [name for name in SAFETENSORS_ABUSES if not name.endswith("named-twice")])
def test_the_library_refuses_the_same_abuses(name: str, tmp_path: Path) -> None:
    path = tmp_path / "abuse.safetensors"
    SAFETENSORS_ABUSES[name].build(path)
    with pytest.raises(SafetensorError):
        safe_open(path, "np").__enter__()


def test_a_header_padded_with_spaces(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "I8", "shape": [1], "data_offsets": [0, 1]}}).encode() + b" " * 9
    safetensors(tmp_path / "a.safetensors", header, b"\xff")
    assert open_checkpoint(tmp_path / "a.safetensors").tensors["a"].read().tolist() == [-1]
