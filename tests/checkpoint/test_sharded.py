"""Checkpoints in several files, as huggingface_hub writes them: one state dict, and only what is there."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile_files import codebook_state
from huggingface_hub import save_torch_state_dict, split_torch_state_dict_into_shards

from vqdoctor.checkpoint import CheckpointError, open_checkpoint, write_checkpoint

STATE = {"encoder.weight": torch.randn(40, 30), **codebook_state(), "decoder.weight": torch.randn(30, 40)}


@pytest.fixture(params=["safetensors", "bin", "legacy bin"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with STATE in several shards."""
    if request.param == "safetensors":
        save_torch_state_dict(STATE, tmp_path, max_shard_size=5000)
        return tmp_path
    split = split_torch_state_dict_into_shards(
        STATE, max_shard_size=5000, filename_pattern="pytorch_model{suffix}.bin"
    )
    for name, keys in split.filename_to_tensors.items():
        zipped = request.param == "bin"
        torch.save({key: STATE[key] for key in keys}, tmp_path / name, _use_new_zipfile_serialization=zipped)
    index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2))
    return tmp_path


def test_the_shards_are_one_state_dict(folder: Path) -> None:
    shards = [file for file in folder.iterdir() if file.suffix != ".json"]
    assert len(shards) >= 3
    for given in (folder, next(folder.glob("*.index.json"))):
        checkpoint = open_checkpoint(given)
        assert checkpoint.container == "sharded" and not checkpoint.skipped
        assert set(checkpoint.tensors) == set(STATE)
        assert all(np.array_equal(t.read(), STATE[key].numpy()) for key, t in checkpoint.tensors.items())
        assert checkpoint.bytes == sum(file.stat().st_size for file in folder.iterdir())


def test_the_identity_is_that_of_all_files(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    files = [checkpoint.path, *(part.path for part in checkpoint.parts)]
    sums = "".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    seen: list[tuple[int, int]] = []
    assert checkpoint.verify(lambda *at: seen.append(at)) == hashlib.sha256(sums.encode()).hexdigest()
    assert seen == sorted(seen) and seen[-1] == (checkpoint.bytes,) * 2
    before = checkpoint.fingerprint(())
    raw = bytearray(files[-1].read_bytes())
    raw[-3] ^= 1
    files[-1].write_bytes(raw)
    assert open_checkpoint(folder).fingerprint(()) != before


def test_shards_share_no_memory(folder: Path) -> None:
    """Every .bin numbers its storages from 0 on."""
    tensors = open_checkpoint(folder).tensors.values()
    assert len({tensor.storage_id for tensor in tensors}) == len(tensors)


def test_only_the_shards_that_are_here_are_needed(folder: Path) -> None:
    place = json.loads(next(folder.glob("*.index.json")).read_text())["weight_map"]
    (folder / place["decoder.weight"]).unlink()
    checkpoint = open_checkpoint(folder)
    assert set(STATE) - set(checkpoint.tensors) == set(checkpoint.skipped) >= {"decoder.weight"}
    assert place["decoder.weight"] in checkpoint.skipped["decoder.weight"]
    assert any("shards are missing" in note and place["decoder.weight"] in note for note in checkpoint.notes)
    for name in set(place.values()):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="no shard is here"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ({"weight_map": {"a": "../secret.pt"}}, "not a file beside it"),
        ({"weight_map": {"a": "/etc/passwd"}}, "not a file beside it"),
        ({"weight_map": {"a": "model.safetensors.index.json"}}, "an index, named by another index"),
        ({"weight_map": {"a": 1}}, "no map"),
        ({"weight_map": ["a"]}, "no map"),
        ({"weight_map": {str(i): f"{i}.bin" for i in range(1001)}}, "1,001 files"),
        ('{"weight_map": {', "not valid JSON"),
    ],
)
def test_an_index_that_lies_is_refused(index: object, says: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(index if isinstance(index, str) else json.dumps(index))
    with pytest.raises(CheckpointError, match=says):
        open_checkpoint(path)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    for name in ("a.bin", "b.bin"):
        torch.save({"w": torch.ones(2)}, tmp_path / name)
    index = {"weight_map": {"w": "a.bin", "x": "b.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="in two of its shards"):
        open_checkpoint(tmp_path)


def test_it_is_not_written_as_one_file(folder: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(folder)
    with pytest.raises(CheckpointError, match="give the shard with the VQ layer"):
        write_checkpoint(checkpoint, tmp_path / "out.pt", {}, note={})
    assert not (tmp_path / "out.pt").exists()
