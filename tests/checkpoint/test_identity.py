"""Fingerprints, verification and samples."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile_files import codebook_state, healthy, record_offset
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from vqdoctor.checkpoint import CheckpointError, LazyTensor, open_checkpoint
from vqdoctor.checkpoint.dtypes import DTYPES
from vqdoctor.checkpoint.records import MemoryRecord
from vqdoctor.checkpoint.tensor import SAMPLE_BLOCK


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def test_verify_returns_the_sha256_and_reports_progress(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.randn(3_000_000)}, path)
    seen: list[tuple[int, int]] = []
    digest = open_checkpoint(path).verify(lambda done, total: seen.append((done, total)))
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert seen == sorted(seen) and seen[-1] == (path.stat().st_size,) * 2 and len(seen) > 3


def test_verify_finds_a_flipped_bit_in_any_record(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    for record in ("data/0", "data/1", "data/2", "version"):
        healthy(path)
        flip(path, record_offset(path, record))
        checkpoint = open_checkpoint(path)
        with pytest.raises(CheckpointError, match=f"{record} do not match"):
            checkpoint.verify()


def test_damage_in_the_pickle_is_noticed_without_verify(tmp_path: Path) -> None:
    """The pickle itself stays readable: one letter of a name is another, and only the checksum tells."""
    path = tmp_path / "a.pt"
    healthy(path)
    raw = path.read_bytes()
    start = record_offset(path, "data.pkl")
    at = raw.index(b"vq.embedding", start)
    flip(path, at)
    with zipfile.ZipFile(path) as archive, pytest.raises(zipfile.BadZipFile, match="CRC"):
        archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    with pytest.raises(CheckpointError, match=r"data\.pkl do not match their checksum"):
        open_checkpoint(path)


def test_verify_of_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(codebook_state(), path)
    assert open_checkpoint(path).verify() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_fingerprint_tells_trainings_apart(tmp_path: Path) -> None:
    def fingerprint(seed: int, name: str) -> str:
        state = codebook_state(seed=seed)
        save_file(state, tmp_path / name)
        checkpoint = open_checkpoint(tmp_path / name)
        return checkpoint.fingerprint([checkpoint.tensors["vq.embedding"]])

    assert fingerprint(0, "a.safetensors") == fingerprint(0, "b.safetensors")
    assert fingerprint(0, "a.safetensors") != fingerprint(1, "b.safetensors")


def test_the_fingerprint_covers_the_tensors_that_are_given(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"pad": torch.zeros(500_000), "vq": torch.zeros(1000), "z": torch.zeros(500_000)}, path)

    def fingerprint(*keys: str) -> str:
        checkpoint = open_checkpoint(path)
        return checkpoint.fingerprint([checkpoint.tensors[key] for key in keys])

    at = path.read_bytes().index(b"}}") + 2
    before, bare = fingerprint("vq", "z"), fingerprint()
    assert before == fingerprint("z", "vq")
    vq = open_checkpoint(path).tensors["vq"].record.offset  # type: ignore[attr-defined]
    flip(path, vq + 501)
    assert at < vq and fingerprint("vq", "z") != before
    flip(path, vq + 501)
    assert (fingerprint("vq", "z"), fingerprint()) == (before, bare)


@given(
    shape=st.lists(st.integers(0, 40), max_size=3).map(tuple),
    order=st.randoms(use_true_random=False),
    gap=st.integers(1, 3),
    count=st.integers(0, 5000),
)
def test_a_sample_holds_elements_of_the_tensor_only(
    shape: tuple[int, ...], order: object, gap: int, count: int
) -> None:
    """Whatever the strides: each element at most once, not more than asked for, all if asked for all."""
    dims = list(range(len(shape)))
    order.shuffle(dims)  # type: ignore[attr-defined]
    strides, step = [0] * len(shape), gap
    for dim in dims:
        strides[dim] = step
        step *= max(shape[dim], 1) + gap - 1
    store = np.arange(step + 10, dtype=np.int32)
    tensor = LazyTensor(
        path=Path("memory"),
        shape=shape,
        strides=tuple(strides),
        offset=3,
        element=DTYPES["int32"],
        record=MemoryRecord(store.tobytes()),
        storage_id=0,
    )
    values = tensor.read()
    sample = tensor.sample(count)
    assert len(np.unique(sample)) == len(sample) <= count
    assert np.isin(sample, values).all()
    if count >= values.size:
        assert len(sample) == values.size
    elif count:
        assert len(sample) > 0


def test_a_sample_is_spread_and_reaches_the_end(tmp_path: Path) -> None:
    torch.save({"w": torch.arange(1_000_000)}, tmp_path / "a.pt")
    sample = open_checkpoint(tmp_path / "a.pt").tensors["w"].sample(16 * SAMPLE_BLOCK)
    assert sample.min() == 0 and sample.max() == 999_999
    assert np.histogram(sample, bins=10)[0].min() > 0
