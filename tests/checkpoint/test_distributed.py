"""Folders of torch.distributed.checkpoint: the saved values, in pieces or whole, and nothing run."""

import os
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from hostile_files import Calls, canary, codebook_state
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex

from vqdoctor.checkpoint import CheckpointError, open_checkpoint, write_checkpoint
from vqdoctor.layouts import find_quantizers

STATE = {
    "model": {
        **codebook_state(),
        "decoder.weight": torch.randn(16, 64).t(),
        "half": torch.ones(3).bfloat16(),
    },
    "optimizer": {
        "state": {0: {"exp_avg": torch.ones(64, 16), "step": torch.tensor(7.0)}},
        "param_groups": [{"lr": 0.1, "params": [0]}],
    },
    "epoch": 5,
    "config": {"beta": 0.25, "names": ["a", "b"]},
}


def save(state: dict[str, Any], folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state, checkpoint_id=folder)
    return folder


def metadata(folder: Path) -> Any:
    return pickle.loads((folder / ".metadata").read_bytes())


def test_the_values_are_those_that_were_saved(tmp_path: Path) -> None:
    save(STATE, tmp_path / "run")
    for given in (tmp_path, tmp_path / "run" / ".metadata"):
        checkpoint = open_checkpoint(given)
        assert checkpoint.container == "torch-distributed" and not checkpoint.skipped
        for key, tensor in STATE["model"].items():
            np.testing.assert_array_equal(checkpoint.tensors[f"model.{key}"].read(), tensor.float().numpy())
        assert checkpoint.tree["epoch"] == 5
        assert checkpoint.tree["config"] == {"beta": 0.25, "names": ["a", "b"]}
        assert checkpoint.tree["optimizer"]["param_groups"] == [{"lr": 0.1, "params": [0]}]
        assert not checkpoint.harmless and not checkpoint.dangerous
    assert [view.name for view in find_quantizers(checkpoint.tensors).views] == ["vq"]
    assert len(checkpoint.verify()) == 64


def split(folder: Path, name: str, *, drop: bool = False, columns: bool = False) -> None:
    """Save a tensor in two pieces, as two ranks do."""
    whole, about = STATE["model"][name.removeprefix("model.")], metadata(folder)
    cut = [whole[:, :10], whole[:, 10:]] if columns else [whole[:40], whole[40:]]
    chunks, at = [], [0, 0]
    for i, piece in enumerate(cut):
        file = folder / f"__{i}_9.distcp"
        torch.save(piece.clone(), file)
        info = next(iter(about.storage_data.values()))
        info = type(info)(file.name, 0, file.stat().st_size)
        chunks.append(ChunkStorageMetadata(torch.Size(at), piece.shape))
        about.storage_data[MetadataIndex(name, torch.Size(at), i)] = info
        at[1 if columns else 0] += piece.shape[1 if columns else 0]
    about.state_dict_metadata[name].chunks = chunks[:1] if drop else chunks[::-1]
    (folder / ".metadata").write_bytes(pickle.dumps(about))


def test_pieces_are_joined_by_rows(tmp_path: Path) -> None:
    split(save(STATE, tmp_path), "model.vq.embedding")
    tensor = open_checkpoint(tmp_path).tensors["model.vq.embedding"]
    expected = STATE["model"]["vq.embedding"].numpy()
    np.testing.assert_array_equal(tensor.read(), expected)
    assert sorted(tensor.sample(10**6)) == sorted(expected.ravel())
    assert b"".join(tensor.raw_chunks()) == expected.tobytes()
    raw = bytearray((tmp_path / "__1_9.distcp").read_bytes())
    raw[raw.index(expected[40:].tobytes()) + 5] ^= 1
    (tmp_path / "__1_9.distcp").write_bytes(raw)
    with pytest.raises(CheckpointError, match="do not match their checksum"):
        open_checkpoint(tmp_path).tensors["model.vq.embedding"].read()


@pytest.mark.parametrize(("how", "why"), [("columns", "not split by rows"), ("drop", "rows are in no piece")])
def test_what_cannot_be_joined_is_named(how: str, why: str, tmp_path: Path) -> None:
    split(save(STATE, tmp_path), "model.vq.embedding", **{how: True})
    checkpoint = open_checkpoint(tmp_path)
    assert "model.vq.embedding" not in checkpoint.tensors
    assert why in checkpoint.skipped["model.vq.embedding"]
    assert any("model.vq.embedding" in note for note in checkpoint.notes)


def test_nothing_is_run_and_no_file_outside_is_read(tmp_path: Path) -> None:
    about = metadata(save(STATE, tmp_path / "run"))
    about.planner_data = {"x": Calls(os.system, f"touch '{canary(tmp_path)}'")}
    (tmp_path / "run" / ".metadata").write_bytes(pickle.dumps(about))
    assert [name.rpartition(".")[2] for name in open_checkpoint(tmp_path).dangerous] == ["system"]
    assert not canary(tmp_path).exists()
    about.planner_data = None
    for info in about.storage_data.values():
        info.relative_path = "../secret.distcp"
    shutil.copy(tmp_path / "run" / "__0_0.distcp", tmp_path / "secret.distcp")
    (tmp_path / "run" / ".metadata").write_bytes(pickle.dumps(about))
    with pytest.raises(CheckpointError, match="not a file beside it"):
        open_checkpoint(tmp_path / "run" / ".metadata")


def test_damage_and_writing_are_one_clear_error(tmp_path: Path) -> None:
    save(STATE, tmp_path)
    with pytest.raises(CheckpointError, match="dcp_to_torch"):
        write_checkpoint(open_checkpoint(tmp_path), tmp_path / "out.pt", {}, note={})
    raw = (tmp_path / "__0_0.distcp").read_bytes()
    (tmp_path / "__0_0.distcp").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(CheckpointError):
        open_checkpoint(tmp_path)
    (tmp_path / ".metadata").write_bytes((tmp_path / ".metadata").read_bytes()[:-40])
    with pytest.raises(CheckpointError):
        open_checkpoint(tmp_path)
