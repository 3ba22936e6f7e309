"""Reading a batch file (`--data`): .npz, .npy, .pt or .safetensors, never executed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from vqdoctor.checkpoint import open_checkpoint
from vqdoctor.checkpoint.files import OpenFile, guarded
from vqdoctor.checkpoint.npy import read_npy
from vqdoctor.checkpoint.records import StoredRecord
from vqdoctor.checkpoint.zip_directory import locate, read_directory
from vqdoctor.core.errors import CheckpointError, UserError

Arrays = Mapping[str, NDArray[Any]]


def load_batch(path: Path) -> Arrays:
    """Return the arrays of a batch file by name; a lone .npy array is called "x".

    Raises:
        CheckpointError: if the file is not one of the four, is damaged, or holds pickled objects.
    """
    if not path.is_file():
        raise CheckpointError(path, "there is no such batch file", "--data takes .npz .npy .pt .safetensors")
    with guarded(path):
        match path.suffix.lower():
            case ".npz":
                file = OpenFile(path)
                entries = read_directory(file).values()
                return {entry.name.removesuffix(".npy"): read_npy(locate(file, entry)) for entry in entries}
            case ".npy":
                file = OpenFile(path)
                return {"x": read_npy(StoredRecord(file, path.name, 0, file.size))}
            case _:
                tensors = open_checkpoint(path).tensors
                return {name.rpartition("/")[2]: tensor.read() for name, tensor in tensors.items()}


def require_values(arrays: Arrays, name: str = "x") -> None:
    """Make sure that the input of a model, under that name, is made of numbers, and of at least one sample.

    Raises:
        UserError: if it is text, or empty.
    """
    x = arrays.get(name)
    if x is not None and x.dtype.kind not in "biufc":
        raise UserError(f"{name} of the batch is text ({x.dtype.name}), not numbers", "save it as float32")
    if x is not None and not x.size:
        what = f"{name} of the batch has no sample: its shape is {list(x.shape)}"
        raise UserError(what, "save at least one")
