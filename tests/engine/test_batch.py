"""A batch file is read like a checkpoint: never executed, and never believed."""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from cost import costs_at_most
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vqdoctor.core.errors import CheckpointError, UserError
from vqdoctor.engine.batch import load_batch, require_values


def npy(array: np.ndarray) -> bytes:  # type: ignore[type-arg]
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def claimed(shape: str, descr: str = "<f8", data: bytes = bytes(8)) -> bytes:
    """Return a .npy file with any header."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@settings(max_examples=60)
@given(
    array=arrays.arrays(
        st.sampled_from(["<f4", ">f8", "<i8", "|b1", "<c8", "<f2", "|u1", "<U3", "|S2"]),
        arrays.array_shapes(min_dims=0),
    ),
    fortran=st.booleans(),
)
def test_every_array_as_numpy_reads_it(tmp_path_factory: pytest.TempPathFactory, array, fortran) -> None:
    folder = tmp_path_factory.mktemp("npy")
    kept = np.asfortranarray(array) if fortran else array
    np.save(folder / "a.npy", kept)
    np.savez_compressed(folder / "a.npz", x=kept, y=array)
    for found in (load_batch(folder / "a.npy")["x"], load_batch(folder / "a.npz")["x"]):
        assert found.dtype == array.dtype and found.tobytes() == array.tobytes() and found.flags.writeable


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (claimed("(100000000000,)"), "claims"),
        (claimed("(9223372036854775807, 9223372036854775807)"), "claims"),
        (claimed("(99999999999999999999,)"), "impossible"),
        (claimed("(" + "1, " * 70 + ")"), "impossible"),
        (claimed("(1,)", "|O"), "pickled"),
        (claimed("(1,)", "<f8, __import__"), "numpy writes"),
        (claimed("(" + "(" * 500 + ")" * 500 + ",)"), "numpy writes"),
        (claimed("(-1,)"), "numpy writes"),
        (claimed("(1,)", data=bytes(4)), "claims"),
        (b"\x93NUMPY\x07\x00\x00\x00", "not a numpy array"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\x7f", "absurdly long"),
        (b"", "empty"),
        (b"hello", "not a numpy array"),
    ],
)
def test_an_abuse_of_npy_is_one_clear_line(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(CheckpointError, match=says):
        load_batch(tmp_path / "x.npy")
    if content:
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            archive.writestr("x.npy", content)
        with pytest.raises(CheckpointError, match=says):
            load_batch(tmp_path / "x.npz")


def test_a_compressed_bomb_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros(300 << 17))

    def refused() -> None:
        with pytest.raises(CheckpointError, match=r"bomb|inflated"):
            load_batch(tmp_path / "bomb.npz")

    costs_at_most(0.5, refused)


def test_mutated_batches_meet_clean_errors_only(tmp_path: Path) -> None:
    rng = random.Random(0)
    np.savez(tmp_path / "a.npz", z_e=np.ones((8, 4), np.float32), indices=np.arange(8))
    for source in ((tmp_path / "a.npz").read_bytes(), npy(np.ones((8, 4), np.float32))):
        path = tmp_path / ("m.npz" if source.startswith(b"PK") else "m.npy")
        for _ in range(500):
            raw = bytearray(source)
            for _ in range(rng.randint(1, 5)):
                raw[rng.randrange(len(raw))] = rng.randrange(256)
            path.write_bytes(raw[: rng.randrange(len(raw))] if rng.random() < 0.1 else raw)
            try:
                load_batch(path)
            except CheckpointError as error:
                assert str(error).isprintable()


@pytest.mark.parametrize("x", [np.zeros((0, 1, 8, 8)), np.array(["a", "b"])])
def test_an_input_without_numbers_is_refused(x: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(UserError, match="x of the batch"):
        require_values({"x": x})
