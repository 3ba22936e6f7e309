"""What is read is what `torch.load(weights_only=True)` reads: the same tensors, or the file is refused."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forged_pickles import HOOKS, call, forged_file, named, number, numbers, text
from hostile_files import torch_zip

from vqdoctor.checkpoint import CheckpointError, LazyTensor, open_checkpoint
from vqdoctor.checkpoint.pickles import tensors as tensor_calls
from vqdoctor.checkpoint.pickles.danger import could_execute
from vqdoctor.checkpoint.pickles.known import KNOWN_HARMLESS, PLAIN
from vqdoctor.checkpoint.tree import Global, walk

FILES = 600


def by_torch(data: bytes) -> list[np.ndarray[Any, Any]] | None:
    """Return the tensors as torch loads them, in no order; None where it refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = torch.load(io.BytesIO(data), weights_only=True)
        except Exception:
            return None
    found: list[torch.Tensor] = []
    todo = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, torch.Tensor):
            found.append(node.detach())
        elif isinstance(node, dict):
            todo += node.values()
        elif isinstance(node, list | tuple | set):
            todo += node
    values = [tensor.resolve_neg().resolve_conj() for tensor in found]
    return [t.float().numpy() if t.dtype is torch.bfloat16 else t.numpy() for t in values]


def by_us(data: bytes, folder: Path) -> list[np.ndarray[Any, Any]] | None:
    """Return the tensors as this package reads them, in no order; None where it refuses."""
    path = folder / "forged.pt"
    path.write_bytes(data)
    try:
        checkpoint = open_checkpoint(path)
        leaves = [leaf for _, leaf in walk(checkpoint.tree) if isinstance(leaf, LazyTensor)]
        return None if any("left out" in note for note in checkpoint.notes) else [t.read() for t in leaves]
    except CheckpointError:
        return None


def as_words(arrays: list[np.ndarray[Any, Any]]) -> list[tuple[str, tuple[int, ...], bytes]]:
    """Return arrays in an order that does not depend on where they were found."""
    return sorted((str(a.dtype), a.shape, np.ascontiguousarray(a).tobytes()) for a in arrays)


def compared(seeds: range, folder: Path) -> Iterator[tuple[int, bool]]:
    """Yield the seed of each file that both readers read, and whether they agree."""
    for seed in seeds:
        data = forged_file(seed)
        ours = by_us(data, folder)
        theirs = None if ours is None else by_torch(data)
        if ours is not None and theirs is not None:
            yield seed, as_words(theirs) == as_words(ours)


def test_the_same_tensors_or_refused(tmp_path: Path) -> None:
    both = dict(compared(range(FILES), tmp_path))
    assert [seed for seed, agree in both.items() if not agree] == []
    assert len(both) > FILES // 5, "most files are refused by one of the two, and nothing is compared"


def test_files_without_a_forgery_are_read_by_both(tmp_path: Path) -> None:
    for seed in range(60):
        data = forged_file(seed, rate=0)
        theirs, ours = by_torch(data), by_us(data, tmp_path)
        assert ours is not None and (theirs is None or as_words(theirs) == as_words(ours)), seed


@pytest.mark.parametrize("hole", ["_refuse_state", "_refuse_metadata"])
def test_a_hole_is_noticed(hole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_calls, hole, lambda state: None)
    assert not all(agree for _, agree in compared(range(FILES), tmp_path))


_UTILS = "torch._utils._rebuild"
_PID = b"(" + text("storage") + named("torch.FloatStorage") + text("0") + text("cpu") + number(4) + b"tQ"
_WHERE = number(0), numbers((4,)), numbers((1,)), b"\x89", HOOKS
_TENSOR = call("torch._utils._rebuild_tensor_v2", _PID, *_WHERE)
_DATA = b"}" + text("data") + _TENSOR + b"s"


@pytest.mark.parametrize(
    ("name", "attack"),
    [
        ("a tensor built", _TENSOR + b"(" + _PID + number(0) + numbers((4,)) + numbers((1,)) + b"tb"),
        ("a storage built", call("torch._utils._rebuild_tensor_v2", _PID + _DATA + b"b", *_WHERE)),
        ("a parameter's state", call(f"{_UTILS}_parameter_with_state", _TENSOR, b"\x89", HOOKS, _DATA)),
        (
            "a subclass's state",
            call(
                "torch._tensor._rebuild_from_type_v2",
                named("torch._utils._rebuild_parameter"), named("torch.nn.parameter.Parameter"),
                b"(" + _TENSOR + b"\x89" + HOOKS + b"t", _DATA,
            ),
        ),
        ("a tensor of numbers", call("torch.FloatTensor", b"](" + number(1) + b"e")),
        ("one record, two types", b"](" + _TENSOR + _TENSOR.replace(b"FloatStorage", b"IntStorage") + b"e"),
        ("a negative view", call(f"{_UTILS}_tensor_v2", _PID, *_WHERE, b"}" + text("neg") + b"\x88s")),
    ],
)  # fmt: skip
def test_a_value_that_changes_after_it_was_made_is_refused(name: str, attack: bytes, tmp_path: Path) -> None:
    path = tmp_path / "attack.pt"
    torch_zip(path, b"\x80\x02}" + text("vq.embedding") + attack + b"s.", {"0": bytes(16)})
    with pytest.raises(CheckpointError, match=r"forged|negated|made of a list"):
        open_checkpoint(path)


def test_a_new_container_is_empty_whatever_it_is_given(tmp_path: Path) -> None:
    listed = b"](" + text("vq.embedding") + _TENSOR + b"\x86e"
    for opcode, keys in ((b"R", ["vq.embedding"]), (b"\x81", [])):
        made = call("collections.OrderedDict", listed, opcode=opcode)
        torch_zip(tmp_path / "new.pt", b"\x80\x02" + made + b".", {"0": bytes(16)})
        assert list(open_checkpoint(tmp_path / "new.pt").tensors) == keys


@pytest.mark.parametrize("double", ["archive/DATA.PKL", "archive/DATA/0", "archive/BYTEORDER"])
def test_a_record_that_torch_would_take_for_another_is_refused(double: str, tmp_path: Path) -> None:
    path = tmp_path / "double.pt"
    torch_zip(path, b"\x80\x02}" + text("vq.embedding") + _TENSOR + b"s.", {"0": bytes(16)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(double, b"big")
    with pytest.raises(CheckpointError, match="capital letters"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch", "int8.__class__.__base__.__subclasses__"), ("torch", "FloatTensor.__init__.__globals__"),
        ("torch._utils", "_rebuild_tensor.__globals__"), ("torch._utils", "_rebuild_evil.os.system"),
        ("torch", "bits_of_evil"), ("torch.sparse", "evilTensor"), ("torch._utils", "_rebuild_by_eval"),
        ("builtins", "int.__subclasses__"), ("collections", "OrderedDict.__init__.__globals__"),
    ],
)  # fmt: skip
def test_nothing_hides_behind_the_beginning_of_an_allowed_name(module: str, name: str) -> None:
    found = Global(module, name)
    assert str(found) not in PLAIN | KNOWN_HARMLESS
    assert could_execute(found) or "__" not in name


def test_no_known_name_could_execute() -> None:
    for known in PLAIN | KNOWN_HARMLESS:
        module, _, name = known.rpartition(".")
        assert not could_execute(Global(module, name)), known
