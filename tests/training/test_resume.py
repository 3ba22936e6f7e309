"""The state of an unfinished retraining: it comes back to the bit, and nothing in its file is executed."""

from __future__ import annotations

import ast
import os
import uuid
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_files import record_offset

import vqdoctor
from vqdoctor.core.errors import UserError
from vqdoctor.training.resume import load_state, save_state

KIND = {"kind": "vqdoctor-retraining"}
TYPES = [
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool",
    "complex64", "complex128", "float8_e4m3fn", "float8_e5m2",
]  # fmt: skip


def again(value: Any, folder: Path) -> Any:
    save_state({**KIND, "value": value}, folder / "state")
    return load_state(folder / "state")["value"]


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (8, 16)], ids=str)
def test_a_tensor_of_any_type_comes_back_to_the_bit(
    tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    dtype = getattr(torch, name)
    value = torch.randn(shape).to(dtype) if name != "bool" else torch.randn(shape) > 0
    found = again(value, tmp_path)
    assert (found.dtype, found.shape) == (dtype, value.shape)
    assert bytes(found.untyped_storage()) == bytes(value.untyped_storage())
    found.untyped_storage().fill_(0)  # it is the run's own, to be written to


def test_what_python_noted_on_a_tensor_stays_out(tmp_path: Path) -> None:
    """Tensors that an optimizer makes while a pass is watched have a function noted on them."""
    noted = torch.ones(3)
    noted.step = lambda other: other  # type: ignore[attr-defined]
    found = again({"state": [noted, torch.nn.Parameter(torch.ones(2))]}, tmp_path)["state"]
    assert torch.equal(found[0], torch.ones(3)) and torch.equal(found[1], torch.ones(2))


def test_an_optimizers_own_values_keep_their_types(tmp_path: Path) -> None:
    layer = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(layer.parameters(), betas=(0.8, 0.9))
    layer(torch.ones(4)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    state["param_groups"][0] |= {"kept_as": torch.bfloat16, "infinite": float("inf"), "none": None}
    found = again(state, tmp_path)
    assert found["param_groups"] == state["param_groups"]
    assert isinstance(found["param_groups"][0]["betas"], tuple)
    for index, kept in state["state"].items():
        assert all(torch.equal(found["state"][index][name], kept[name]) for name in kept)


class Hostile:
    """A pickle that would run a command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("place", ["the state", "a value"])
def test_nothing_in_a_hostile_state_is_executed(tmp_path: Path, place: str) -> None:
    evil = Hostile(tmp_path / "executed")
    torch.save(evil if place == "the state" else {**KIND, "value": [evil]}, tmp_path / "state")
    with pytest.raises(UserError, match=r"it holds a (posix|nt)\.system\): delete it"):
        load_state(tmp_path / "state")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "value", [{1, 2}.union, b"bytes", 1j, uuid.UUID(int=1)], ids=["method", "bytes", "complex", "uuid"]
)
def test_an_object_is_refused_and_never_dropped(tmp_path: Path, value: Any) -> None:
    with pytest.raises(UserError, match="it holds a"):
        again(value, tmp_path)


def test_a_tensor_that_is_not_read_is_refused_and_never_dropped(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="delete it"):
        again(torch.eye(3).to_sparse(), tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"not a state"])
def test_a_damaged_state_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fixed.pt.resume"
    path.write_bytes(content)
    with pytest.raises(UserError, match="delete it"):
        load_state(path)


@pytest.mark.parametrize("record", ["data.pkl", "data/0"])
def test_a_flipped_bit_is_found(tmp_path: Path, record: str) -> None:
    path = tmp_path / "state"
    save_state({**KIND, "value": torch.ones(100)}, path)
    raw = bytearray(path.read_bytes())
    raw[record_offset(path, record) + 30] ^= 1
    path.write_bytes(raw)
    with pytest.raises(UserError, match="checksum"):
        load_state(path)


@pytest.mark.parametrize("state", [{"kind": "another"}, {"model": torch.ones(2)}, [1]], ids=str)
def test_another_file_is_no_state(tmp_path: Path, state: Any) -> None:
    torch.save(state, tmp_path / "state")
    with pytest.raises(UserError, match="not a state of a retraining"):
        load_state(tmp_path / "state")


LOADERS = {
    "torch.load",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "torch.jit.load",
    "torch.hub.load",
}


def loaders_of(source: str) -> list[str]:
    """The names in a source that read a file by executing it: as an attribute, or imported."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in LOADERS:
            found.append(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in found if name in LOADERS]


def test_no_module_reads_a_file_with_a_loader_that_executes() -> None:
    for path in Path(vqdoctor.__file__).parent.rglob("*.py"):
        assert loaders_of(path.read_text(encoding="utf-8")) == [], path
    assert loaders_of("import torch\ntorch.load(path)") == ["torch.load"]
    assert loaders_of("from pickle import loads") == ["pickle.loads"]
