"""Files of `torch.save` before torch 1.6: the tensors of `torch.load`, in flat memory, and written again."""

import argparse
import collections
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile_files import Calls, PickledModule, canary, codebook_state

from vqdoctor.checkpoint import CheckpointError, open_checkpoint, write_checkpoint

MAGIC = 0x1950A86A20F9469CFC6C


def save_legacy(saved: object, path: Path) -> None:
    torch.save(saved, path, _use_new_zipfile_serialization=False)


def _everything() -> dict[str, object]:
    base = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    shared = torch.arange(20.0)
    return {
        "model": collections.OrderedDict(codebook_state()),
        "views": [base.t(), base[2:4, ::2], shared[:5], shared[5:], shared[3].clone()],
        "types": {str(t): torch.ones(3).to(t) for t in (torch.float64, torch.half, torch.bfloat16)},
        "ints": [torch.arange(5, dtype=t) for t in (torch.uint8, torch.int8, torch.int16, torch.int64)],
        "odd": {"bool": torch.tensor([True, False]), "c": torch.ones(2, dtype=torch.complex64)},
        "empty": torch.zeros(0, 4),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "plain": {"epoch": 7, "names": ("a", None, 1.5), "device": torch.device("cpu")},
    }


def test_the_tensors_are_those_of_torch_load(tmp_path: Path) -> None:
    save_legacy(_everything(), tmp_path / "old.pt")
    checkpoint = open_checkpoint(tmp_path / "old.pt")
    loaded = torch.load(tmp_path / "old.pt", weights_only=True)
    assert checkpoint.container == "torch-legacy" and not checkpoint.notes
    flat = {
        f"{name}.{key}": value
        for name, part in loaded.items()
        for key, value in (part.items() if isinstance(part, dict) else enumerate(part))
        if name not in ("empty", "parameter")
    } | {name: loaded[name] for name in ("empty", "parameter")}
    tensors = {key: value for key, value in flat.items() if isinstance(value, torch.Tensor)}
    assert set(tensors) == set(checkpoint.tensors)
    for key, tensor in tensors.items():
        stored = checkpoint.tensors[key]
        assert (stored.shape, f"torch.{stored.dtype}") == (tuple(tensor.shape), str(tensor.dtype))
        wide = tensor.detach().float() if stored.dtype.startswith("bf") else tensor.detach()
        np.testing.assert_array_equal(stored.read(), wide.numpy(), err_msg=key)
    assert checkpoint.tree["plain"] == {"epoch": 7, "names": ("a", None, 1.5), "device": "cpu"}
    first, second = (checkpoint.tensors[f"views.{i}"] for i in (2, 3))
    assert first.storage_id == second.storage_id


def test_whole_modules_and_foreign_objects_are_read_and_named(tmp_path: Path) -> None:
    module = PickledModule()
    save_legacy({"net": module, "args": argparse.Namespace(beta=0.25)}, tmp_path / "old.pth")
    checkpoint = open_checkpoint(tmp_path / "old.pth")
    for key, tensor in module.state_dict().items():
        np.testing.assert_array_equal(checkpoint.tensors[f"net.{key}"].read(), tensor.numpy())
    assert "argparse.Namespace" in checkpoint.harmless and not checkpoint.dangerous


@pytest.mark.parametrize("part", range(1, 5))
def test_what_could_execute_is_named_in_whatever_pickle(part: int, tmp_path: Path) -> None:
    path = tmp_path / "bad.pt"
    values = [pickle.dumps(value, 2) for value in (MAGIC, 1001, {"little_endian": True}, {"a": 1}, [])]
    bad = pickle.dumps(Calls(eval, f"open({str(canary(path))!r}, 'w')"), 2)
    values[part] = bad[:-1] + b"0" + values[part][2:]  # called, dropped by POP, and the value behind it
    path.write_bytes(b"".join(values))
    assert [name.rpartition(".")[2] for name in open_checkpoint(path).dangerous] == ["eval"]
    assert not canary(path).exists()


def test_every_cut_is_one_clear_error(tmp_path: Path) -> None:
    save_legacy({"model": codebook_state(8, 4)}, tmp_path / "whole.pt")
    raw = (tmp_path / "whole.pt").read_bytes()
    for size in {*range(16, len(raw), 37), len(raw) - 1}:
        (tmp_path / "cut.pt").write_bytes(raw[:size])
        with pytest.raises(CheckpointError):
            open_checkpoint(tmp_path / "cut.pt")


def test_a_fix_writes_a_file_that_torch_loads(tmp_path: Path) -> None:
    state = codebook_state()
    save_legacy({"model": state, "epoch": 3}, tmp_path / "in.pt")
    path = tmp_path / "in.pt"
    for step in (1, 2):
        checkpoint = open_checkpoint(path)
        new = np.full((64, 16), step, np.float32)
        out = tmp_path / f"out{step}.pt"
        write_checkpoint(checkpoint, out, {"model.vq.embedding": new}, note={"step": step})
        loaded = torch.load(out, weights_only=True)
        assert loaded["epoch"] == 3 and (loaded["model"]["vq.embedding"] == step).all()
        assert torch.equal(loaded["model"]["vq.ema_cluster_size"], state["vq.ema_cluster_size"])
        assert [note["step"] for note in open_checkpoint(out).history] == list(range(1, step + 1))
        path = out
