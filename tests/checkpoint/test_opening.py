"""Paths: folders, slips, links, and what the system refuses; one CheckpointError each."""

import os
import socket
from pathlib import Path

import pytest
from hostile_files import codebook_state, healthy
from processes import python
from safetensors.torch import save_file

from vqdoctor.checkpoint import CheckpointError, containers, open_checkpoint
from vqdoctor.checkpoint.model import Container
from vqdoctor.checkpoint.strangers import describe
from vqdoctor.core.discovery import pieces


@pytest.mark.parametrize("name", ["model.pt", "pytorch_model.bin", "run.ckpt"])
def test_a_folder_with_one_checkpoint(name: str, tmp_path: Path) -> None:
    healthy(tmp_path / name)
    (tmp_path / "config.json").write_text("{}")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.path == tmp_path / name
    assert name in checkpoint.notes[0]


def test_the_usual_name_wins(tmp_path: Path) -> None:
    healthy(tmp_path / "pytorch_model.bin")
    healthy(tmp_path / "optimizer.pt")
    assert open_checkpoint(tmp_path).path.name == "pytorch_model.bin"


def test_a_folder_is_its_newest_checkpoint(tmp_path: Path) -> None:
    for name, seconds in (("a.pt", 200), ("deep/b.pt", 100), ("deep/er/c.pt", 300), (".git/d.pt", 400)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        healthy(tmp_path / name)
        os.utime(tmp_path / name, (seconds, seconds))
    found = open_checkpoint(tmp_path)
    assert found.path == tmp_path / "deep/er/c.pt"
    assert found.notes == ("a folder was given; deep/er/c.pt in it was opened",)


def test_a_hub_folder_with_both_kinds_is_read_as_from_pretrained_reads_it(tmp_path: Path) -> None:
    healthy(tmp_path / "pytorch_model.bin")
    save_file(codebook_state(8), tmp_path / "model.safetensors")
    os.utime(tmp_path / "model.safetensors", (1, 1))
    found = open_checkpoint(tmp_path)
    assert (found.path.name, len(found.tensors["vq.embedding"].read())) == ("model.safetensors", 8)
    assert "pytorch_model.bin beside it: passed over" in found.notes[0]


def test_a_slip_in_the_name(tmp_path: Path) -> None:
    healthy(tmp_path / "healthy-256.pt")
    with pytest.raises(CheckpointError, match=r"no such file: did you mean healthy-256\.pt"):
        open_checkpoint(tmp_path / "healty-256.pt")
    with pytest.raises(CheckpointError, match="there is no folder"):
        open_checkpoint(tmp_path / "nowhere" / "a.pt")
    with pytest.raises(CheckpointError, match="not a folder"):
        open_checkpoint(tmp_path / "healthy-256.pt" / "a.pt")


def test_links(tmp_path: Path) -> None:
    healthy(tmp_path / "real.pt")
    (tmp_path / "link.pt").symlink_to("real.pt")
    assert open_checkpoint(tmp_path / "link.pt").tensors
    (tmp_path / "broken.pt").symlink_to("gone.pt")
    with pytest.raises(CheckpointError, match=r"points to gone\.pt"):
        open_checkpoint(tmp_path / "broken.pt")


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    healthy(tmp_path / "mine.pt")

    def refuse(*args: object, **kwargs: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # root may read everything, so chmod would prove nothing
    with pytest.raises(CheckpointError, match="no permission"):
        open_checkpoint(tmp_path / "mine.pt")


def test_names_that_are_hard_to_print(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="NUL"):
        open_checkpoint("a\x00b.pt")
    odd = os.fsdecode(bytes(tmp_path) + b"/caf\xe9\x1b[2J.pt")
    healthy(Path(odd))
    assert open_checkpoint(odd).tensors
    Path(odd).write_bytes(b"")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(odd)
    assert str(caught.value).isprintable()
    with pytest.raises(CheckpointError):
        open_checkpoint("x" * 5000)
    with pytest.raises(CheckpointError):
        open_checkpoint("")


def test_devices_and_sockets(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="character device"):
        open_checkpoint("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        with pytest.raises(CheckpointError, match="socket"):
            open_checkpoint(tmp_path / "s")


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"\x89HDF\r\n\x1a\n", "HDF5"), (b"GGUF\x03", "GGUF"), (b"\x08\x08\x12\x07pytorch\x1a", "ONNX"),
        (b"\x82\xa4step\x01\xa6params", "msgpack"), (b"{}", "JSON"), (b"<html>", "HTML"),
        (b"PAR1", "Parquet"), ("# Größe".encode(), "text"), (b"\xff\xfe\x00\x01", None), (b"a\x00b", None),
        ("ä".encode() * 2048, "text"),
    ],
)  # fmt: skip
def test_strangers(head: bytes, says: str | None) -> None:
    found = describe(head[:4096])
    assert found is None if says is None else found is not None and says in found.kind
    assert found is None or "weights_only=False" not in found.hint


def test_every_container_is_found() -> None:
    found = [c.name for c in pieces(containers, "CONTAINER", Container)]
    assert found == [
        "torch-distributed", "gzip", "numpy-npy", "numpy-npz", "safetensors", "sharded", "torch-export",
        "torch-legacy", "torch-zip",
    ]  # fmt: skip


def test_reading_needs_no_torch(tmp_path: Path) -> None:
    healthy(tmp_path / "a.pt")
    heavy = ("torch", "safetensors", "zipfile", "pickle", "matplotlib", "difflib")
    script = (
        "import sys\nfrom vqdoctor.checkpoint import open_checkpoint\n"
        "before = set(sys.modules)\n"
        f"c = open_checkpoint({str(tmp_path / 'a.pt')!r})\n"
        "c.tensors['model.vq.embedding'].read(); c.fingerprint([]); c.verify()\n"
        f"print([m for m in {('torch', 'safetensors', 'matplotlib')!r} if m in sys.modules])\n"
        f"print([m for m in {heavy!r} if m in set(sys.modules) - before])\n"
    )
    done = python("-c", script, check=True)
    assert done.stdout.splitlines() == ["[]", "[]"]
