"""Reading a batch file (`--data`): .npz, .npy, .pt or .safetensors, never executed."""

from __future__ import annotations

import ast
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqdoctor.checkpoint import open_checkpoint
from vqdoctor.core.errors import CheckpointError

Arrays = Mapping[str, NDArray[Any]]
LARGEST = 16 * 2**30
"""Bytes that the arrays of one batch file may claim."""


def load_batch(path: Path) -> Arrays:
    """Return the arrays of a batch file by name; a lone .npy array is called "x".

    Raises:
        CheckpointError: if the file is not one of the four, is damaged, or holds pickled objects.
    """
    if not path.is_file():
        raise CheckpointError(path, "there is no such batch file", "--data takes .npz .npy .pt .safetensors")
    readers = {".npz": _npz, ".npy": _npy}
    reader = readers.get(path.suffix.lower(), _tensors)
    try:
        return reader(path)
    except CheckpointError:
        raise
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        MemoryError,
        zipfile.BadZipFile,
        NotImplementedError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            path, f"not a readable batch ({reason})", "write it with numpy.savez"
        ) from error


def _npz(path: Path) -> Arrays:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as stream:
                _refuse_forged(path, stream, member.file_size)
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _npy(path: Path) -> Arrays:
    with path.open("rb") as stream:
        _refuse_forged(path, stream, path.stat().st_size)
    return {"x": np.load(path, allow_pickle=False)}


def _refuse_forged(path: Path, stream: Any, size: int) -> None:
    """Hold a .npy header against the bytes that follow it, before numpy allocates what it claims."""
    version = np.lib.format.read_magic(stream)
    width = 2 if version == (1, 0) else 4
    header = stream.read(int.from_bytes(stream.read(width), "little"))
    fields = ast.literal_eval(header.decode("utf8"))
    dtype = np.dtype(fields["descr"])
    count = 1
    for length in fields["shape"]:
        count *= int(length)
    if dtype.hasobject:
        raise CheckpointError(path, "it holds pickled Python objects", "save plain arrays with numpy.savez")
    if count * dtype.itemsize > min(size, LARGEST):
        raise CheckpointError(path, f"its header claims {count} values, more than it holds", "write it again")


def _tensors(path: Path) -> Arrays:
    checkpoint = open_checkpoint(path)
    return {name.rpartition("/")[2]: tensor.read() for name, tensor in checkpoint.tensors.items()}
