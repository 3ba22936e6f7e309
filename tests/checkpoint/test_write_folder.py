"""A folder in, a folder out: the library that wrote the one loads the other."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import VQModel

from vqdoctor.checkpoint import CheckpointError, open_checkpoint, write_checkpoint, write_folder, writing
from vqdoctor.core.settings import Settings
from vqdoctor.engine.repair import repair_file

KEY = "quantize.embedding.weight"


@pytest.fixture(params=["one file", "shards", "bin"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = VQModel(block_out_channels=(8,), norm_num_groups=4, num_vq_embeddings=32, latent_channels=4)
    how = {"one file": {}, "shards": {"max_shard_size": "5KB"}, "bin": {"safe_serialization": False}}
    model.save_pretrained(tmp_path / "in", **how[request.param])
    torch.save({"state": {}, "param_groups": []}, tmp_path / "in" / "optimizer.pt")
    return tmp_path / "in"


def test_from_pretrained_loads_what_was_written(folder: Path, tmp_path: Path) -> None:
    before = VQModel.from_pretrained(folder).state_dict()
    checkpoint = open_checkpoint(folder)
    new = np.arange(checkpoint.tensors[KEY].numel, dtype=np.float32).reshape(checkpoint.tensors[KEY].shape)
    write_folder(checkpoint, tmp_path / "out", {KEY: new}, note={"a": 1})
    after = VQModel.from_pretrained(tmp_path / "out").state_dict()
    assert set(after) == set(before)
    for name, tensor in after.items():
        expected = torch.from_numpy(new) if name == KEY else before[name]
        assert torch.equal(tensor, expected), name
    assert not (tmp_path / "out" / "optimizer.pt").exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in", "out"], "nothing temporary is left"
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_vq_embeddings"] == 32
    with pytest.raises(CheckpointError, match="exists already"):
        write_folder(checkpoint, tmp_path / "out", {KEY: new}, note={})


def test_a_fix_of_a_folder_writes_a_folder(folder: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(folder)
    same = np.repeat(checkpoint.tensors[KEY].read()[:8], 4, axis=0)  # every code four times
    write_folder(checkpoint, tmp_path / "sick", {KEY: same}, note={})
    report = repair_file(tmp_path / "sick", tmp_path / "cured", settings=Settings(unsafe=True))
    assert [repair.status for repair in report.repairs if repair.remedy == "spread-duplicates"] == ["applied"]
    rows = VQModel.from_pretrained(tmp_path / "cured").quantize.embedding.weight
    assert len(torch.unique(rows, dim=0)) == 32


def test_a_failure_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(folder)
    huge = np.full(checkpoint.tensors[KEY].shape, 1e300)
    with pytest.raises(CheckpointError, match="does not fit"):
        write_folder(checkpoint, tmp_path / "out", {KEY: huge}, note={})
    assert [file.name for file in tmp_path.iterdir()] == ["in"]


def test_a_shard_that_changes_meanwhile_is_noticed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = open_checkpoint(folder)
    files = checkpoint.parts or (checkpoint,)
    plain = writing._read_back

    def saved_over(*args: object) -> None:
        plain(*args)  # type: ignore[arg-type]
        for file in files:
            os.utime(file.path, (0, 0))

    monkeypatch.setattr(writing, "_read_back", saved_over)
    with pytest.raises(CheckpointError, match="changed while it was being fixed"):
        write_folder(checkpoint, tmp_path / "out", {KEY: checkpoint.tensors[KEY].read()}, note={})
    assert [file.name for file in tmp_path.iterdir()] == ["in"]


def test_a_file_that_appears_meanwhile_is_not_overwritten(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = open_checkpoint(folder)
    (part,) = (file for file in checkpoint.parts or (checkpoint,) if KEY in file.tensors)
    target = tmp_path / "out.safetensors"
    monkeypatch.setattr(writing, "_refuse_changed", lambda *_: target.write_text("another's"))
    with pytest.raises(CheckpointError, match="exists already"):
        write_checkpoint(part, target, {KEY: part.tensors[KEY].read()}, note={})
    assert target.read_text() == "another's" and len(list(tmp_path.iterdir())) == 2
