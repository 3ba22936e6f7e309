"""Weights in containers of others: numpy, gzip, standard input, TorchScript and torch.export."""

import gzip
import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile_files import codebook_state, healthy
from processes import python, run
from safetensors.torch import save_file

from vqdoctor.checkpoint import CheckpointError, open_checkpoint, write_checkpoint
from vqdoctor.layouts import find_quantizers

STATE = codebook_state()


class Model(torch.nn.Module):
    """A model with a codebook, which can be scripted and exported."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Linear(8, 16)
        self.vq = torch.nn.Module()
        for name, tensor in STATE.items():
            self.vq.register_buffer(name.removeprefix("vq."), tensor)
        self.register_buffer("narrow", torch.randn(4, 3).bfloat16())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x) @ self.vq.embedding.t()


def same(path: Path, state: dict[str, torch.Tensor]) -> None:
    """Assert that a file holds a state dict, whatever else it holds."""
    checkpoint = open_checkpoint(path)
    for key, tensor in state.items():
        wide = tensor.detach().float() if tensor.dtype == torch.bfloat16 else tensor.detach()
        np.testing.assert_array_equal(checkpoint.tensors[key].read(), wide.numpy(), err_msg=key)
    assert [view.name for view in find_quantizers(checkpoint.tensors).views] == ["vq"]
    checkpoint.fingerprint(checkpoint.tensors.values())
    assert len(checkpoint.verify()) == 64


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(save, tmp_path: Path) -> None:
    arrays = {key.replace(".", "/"): t.numpy() for key, t in STATE.items()}
    odd = {
        "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)), "big": np.arange(3, dtype=">f4"),
        "scalar": np.float32(7), "bool": np.array([True, False]), "none": np.zeros((0, 3)),
    }  # fmt: skip
    save(tmp_path / "a.npz", **arrays, **odd, names=np.array(["a"]), pickled=np.array([print], dtype=object))
    same(tmp_path / "a.npz", STATE)
    checkpoint = open_checkpoint(tmp_path / "a.npz")
    for key, array in odd.items():
        np.testing.assert_array_equal(checkpoint.tensors[key].read(), array, err_msg=key)
    assert checkpoint.skipped == {"names": "an array of other types", "pickled": "an array of objects"}
    assert len(checkpoint.notes) == 2
    with pytest.raises(CheckpointError, match="only read"):
        write_checkpoint(checkpoint, tmp_path / "b.npz", {}, note={})


def test_npz_of_a_batch_and_npy(tmp_path: Path) -> None:
    np.savez(tmp_path / "batch.npz", x=np.zeros(3), indices=np.arange(3))
    with pytest.raises(CheckpointError, match="a batch goes to --data"):
        open_checkpoint(tmp_path / "batch.npz")
    for version in ((1, 0), (2, 0), (3, 0)):
        with (tmp_path / "codebook.npy").open("wb") as file:
            np.lib.format.write_array(file, STATE["vq.embedding"].numpy(), version)
        tensor = open_checkpoint(tmp_path / "codebook.npy").tensors["codebook"]
        np.testing.assert_array_equal(tensor.read(), STATE["vq.embedding"].numpy())
    (view,) = find_quantizers({"codebook": tensor}, codebook_key="codebook").views
    assert (view.num_codes, view.dim) == (64, 16)
    raw = (tmp_path / "codebook.npy").read_bytes()
    for bad in (raw[:-1], raw[:60], raw.replace(b"(64, 16)", b"(1<<9,9)"), raw.replace(b"'<f4'", b"'|O8'")):
        (tmp_path / "bad.npy").write_bytes(bad)
        with pytest.raises(CheckpointError):
            open_checkpoint(tmp_path / "bad.npy")


def test_gzip_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    healthy(tmp_path / "a.pt")
    save_file(STATE, tmp_path / "a.safetensors")
    torch.save(STATE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("a.pt", "a.safetensors", "old.pt"):
        raw = (tmp_path / name).read_bytes()
        two_members = gzip.compress(raw[:100]) + gzip.compress(raw[100:]) + bytes(9)
        (tmp_path / f"{name}.gz").write_bytes(two_members)
        found = open_checkpoint(tmp_path / f"{name}.gz")
        key = next(key for key in found.tensors if key.endswith("vq.embedding"))
        np.testing.assert_array_equal(found.tensors[key].read(), STATE["vq.embedding"].numpy())
        assert (found.container, found.bytes) == ("gzip", len(two_members))
        assert len(found.verify()) == 64 and len(found.fingerprint(found.tensors.values())) == 64
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
        piped = open_checkpoint("-")
        np.testing.assert_array_equal(piped.tensors[key].read(), STATE["vq.embedding"].numpy())
        assert piped.verify() == open_checkpoint(tmp_path / name).verify()
        with pytest.raises(CheckpointError, match="gunzip"):
            write_checkpoint(found, tmp_path / "out.pt", {}, note={})
    raw = bytearray(gzip.compress((tmp_path / "a.pt").read_bytes()))
    raw[-6] ^= 1
    (tmp_path / "bad.gz").write_bytes(raw)
    with pytest.raises(CheckpointError, match="damaged"):
        open_checkpoint(tmp_path / "bad.gz")
    (tmp_path / "twice.gz").write_bytes(gzip.compress(gzip.compress(b"a")))
    with pytest.raises(CheckpointError, match="inside a gzip"):
        open_checkpoint(tmp_path / "twice.gz")


def test_standard_input_by_command(tmp_path: Path) -> None:
    healthy(tmp_path / "a.pt")
    with (tmp_path / "a.pt").open("rb") as file:
        done = python("-m", "vqdoctor", "inspect", "-", stdin=file)
    assert done.returncode == 0 and "HEALTHY" in done.stdout
    done = run(sys.executable, "-m", "vqdoctor", "gate", "-", input="")
    assert done.returncode == 2 and "there is nothing in it" in done.stderr


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch_script(tmp_path: Path) -> None:
    model = Model()
    torch.jit.save(torch.jit.trace(model, torch.randn(2, 8)), tmp_path / "a.pt")
    same(tmp_path / "a.pt", model.state_dict())
    assert "TorchScript" in open_checkpoint(tmp_path / "a.pt").notes[0]


def test_torch_export(tmp_path: Path) -> None:
    model = Model()
    torch.export.save(torch.export.export(model, (torch.randn(2, 8),)), tmp_path / "a.pt2")
    same(tmp_path / "a.pt2", model.state_dict())
    checkpoint = open_checkpoint(tmp_path / "a.pt2")
    assert checkpoint.container == "torch-export" and not checkpoint.skipped
    with pytest.raises(CheckpointError, match="only read"):
        write_checkpoint(checkpoint, tmp_path / "b.pt2", {}, note={})


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("https://huggingface.co/ab/c-d/resolve/main/model.pt", "hf download ab/c-d"),
        ("https:/huggingface.co/ab/c-d", "hf download ab/c-d"),
        ("hf://ab/c-d", "hf download ab/c-d"),
        ("https://example.org/model.pt", "curl -LO https://example.org/model.pt"),
        ("s3://bucket/model.pt", "aws s3 cp s3://bucket/model.pt"),
    ],
)
def test_an_address_says_how_to_fetch_the_file(path: str, says: str) -> None:
    with pytest.raises(CheckpointError, match="only local files are read") as caught:
        open_checkpoint(path)
    assert says in caught.value.hint


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("model.ckpt.index", b"\x00\x00\x01\xff\xfe", "TensorFlow checkpoint"),
        ("model.ckpt.data-00000-of-00001", bytes(range(255, 0, -1)), "TensorFlow checkpoint"),
        ("flax_model.msgpack", b"\x81\xa6params\x82\xa1a\xc7", "Flax"),
        ("a.gguf", b"GGUF\x03\x00", "GGUF"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "Keras"),
        ("a.onnx", b"\x08\x07\x12\x07pytorch\x1a", "ONNX"),
        ("b.onnx", b"\x08\x0a\x12\x03\xff\xfe\xfd", "ONNX"),
    ],
)
def test_the_files_of_other_frameworks_are_named_with_what_to_do(
    name: str, data: bytes, says: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=says) as caught:
        open_checkpoint(tmp_path / name)
    assert "numpy.savez" in caught.value.hint or "made from" in caught.value.hint


def test_a_folder_of_jax_is_named(tmp_path: Path) -> None:
    (tmp_path / "_CHECKPOINT_METADATA").write_text("{}")
    with pytest.raises(CheckpointError, match="Orbax"):
        open_checkpoint(tmp_path)
