"""Reading a batch file (`--data`): .npz, .npy, .pt or .safetensors, never executed."""

from __future__ import annotations

import ast
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vqdoctor.checkpoint import open_checkpoint
from vqdoctor.core.errors import CheckpointError

Arrays = Mapping[str, NDArray[Any]]
LARGEST = 16 * 2**30
"""Bytes that the arrays of one batch file may claim."""
UNREADABLE = (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, NotImplementedError)
"""Errors that numpy and zipfile raise for a damaged file."""


def load_batch(path: Path) -> Arrays:
    """Return the arrays of a batch file by name; a lone .npy array is called "x".

    Raises:
        CheckpointError: if the file is not one of the four, is damaged, or holds pickled objects.
    """
    if not path.is_file():
        raise CheckpointError(path, "there is no such batch file", "--data takes .npz .npy .pt .safetensors")
    try:
        match path.suffix.lower():
            case ".npz":
                return _npz(path)
            case ".npy":
                with path.open("rb") as stream:
                    _refuse_forged(path, stream, path.stat().st_size)
                return {"x": np.load(path, allow_pickle=False)}
            case _:
                tensors = open_checkpoint(path).tensors
                return {name.rpartition("/")[2]: tensor.read() for name, tensor in tensors.items()}
    except CheckpointError:
        raise
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        hint = "write it with numpy.savez"
        raise CheckpointError(path, f"not a readable batch ({reason})", hint) from error


def _npz(path: Path) -> Arrays:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as stream:
                _refuse_forged(path, stream, member.file_size)
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _refuse_forged(path: Path, stream: IO[bytes], size: int) -> None:
    """Compare a .npy header with the bytes that follow it, before numpy allocates as many as it claims."""
    version = np.lib.format.read_magic(stream)
    width = 2 if version == (1, 0) else 4
    header = stream.read(int.from_bytes(stream.read(width), "little"))
    fields = ast.literal_eval(header.decode("utf8"))
    dtype = np.dtype(fields["descr"])
    count = math.prod(int(length) for length in fields["shape"])
    if dtype.hasobject:
        raise CheckpointError(path, "it holds pickled Python objects", "save plain arrays with numpy.savez")
    if count * dtype.itemsize > min(size, LARGEST):
        raise CheckpointError(path, f"its header claims {count} values, more than it holds", "write it again")
