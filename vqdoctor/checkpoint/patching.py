"""Changing tensors in a copy of a file: only the elements that differ are written, in the stored type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.lib.stride_tricks import as_strided

from vqdoctor.checkpoint.dtypes import AnyArray
from vqdoctor.checkpoint.files import CHUNK, Damaged, OpenFile, printable
from vqdoctor.checkpoint.records import StoredRecord
from vqdoctor.checkpoint.tensor import LazyTensor


def copy(file: OpenFile, out: BinaryIO, start: int, end: int) -> None:
    """Append the bytes from `start` to `end` of a file to another."""
    for chunk in file.chunks(start, end - start):
        out.write(chunk)


def record_of(tensor: LazyTensor) -> StoredRecord:
    """Return the record of a tensor, for writing.

    Raises:
        Damaged: if its bytes are not in the file as they are.
    """
    if isinstance(tensor.record, StoredRecord):
        return tensor.record
    raise Damaged(
        f"{printable(tensor.key)} is compressed, or an array in the pickle, and cannot be written in place",
        "load the file with torch.load and save it again with torch.save, its arrays as tensors",
    )


def patch(out: BinaryIO, tensor: LazyTensor, values: AnyArray, shift: int = 0) -> None:
    """Write the values that differ from the tensor's to its position in the copy.

    Args:
        out: the copy, open for reading and writing.
        tensor: as the original has it.
        values: of its shape.
        shift: how much further back the tensor's record begins in the copy.

    Raises:
        Damaged: if a value does not fit into the stored type.
    """
    if not tensor.numel:
        return
    old = tensor.read()
    differs = (old != values) & ~((old != old) & (values != values))
    if not differs.any():
        return
    try:
        raw = tensor.element.encode(values[differs])
    except ValueError as error:
        raise Damaged(f"{printable(tensor.key)} cannot be written: {error}") from error
    size = tensor.element.itemsize
    at = record_of(tensor).offset + shift + tensor.offset * size
    out.seek(at)
    stored = np.dtype((">" if tensor.big_endian else "<") + tensor.element.stored)
    span = np.frombuffer(bytearray(out.read(tensor.span * size)), stored)
    steps = [step * size for step in tensor.strides]
    as_strided(span, tensor.shape, steps)[differs] = raw
    out.seek(at)
    out.write(span.tobytes())


def chunks_of(out: BinaryIO, start: int, size: int) -> Iterator[bytes]:
    """Yield bytes of a file that is being written, a few MiB at a time."""
    out.seek(start)
    while size:
        chunk = out.read(min(CHUNK, size))
        yield chunk
        size -= len(chunk)
