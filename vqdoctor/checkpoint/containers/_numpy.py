"""The array format of numpy, `.npy`: a header that is a Python literal, and the elements behind it.

References:
    numpy/lib/_format_impl.py; NEP 1, "A Simple File Format for NumPy Arrays".
"""

from __future__ import annotations

from collections.abc import Hashable
from math import prod
from pathlib import Path

from vqdoctor.checkpoint.dtypes import DTYPES
from vqdoctor.checkpoint.files import TRUNCATED, Damaged, printable
from vqdoctor.checkpoint.npy import read_header
from vqdoctor.checkpoint.records import JoinedRecord, Record
from vqdoctor.checkpoint.tensor import LazyTensor

_CODES = {dtype.stored: dtype for dtype in DTYPES.values() if dtype.widen is None} | {"b1": DTYPES["bool"]}


def array_in(record: Record, path: Path, storage_id: Hashable) -> LazyTensor | str:
    """Return the array that a record holds, or the name of its element type where that is not read.

    An array of objects is a pickle, which stays where it is.

    Raises:
        Damaged: if the header is malformed, or states more than the record holds.
    """
    header = read_header(record)
    shape, start = header.shape, header.start
    element = _CODES.get(header.code.lstrip("<>|="))
    if element is None:
        return "objects" if header.code == "|O" else "other types"
    if start % element.itemsize:
        record, start = JoinedRecord(record.name, [(record, start, record.size - start)]), 0
    if prod(shape) * element.itemsize > record.size - start:
        raise Damaged(f"truncated: {printable(record.name)} states more than it holds", TRUNCATED)
    steps = [prod(shape[:i] if header.fortran else shape[i + 1 :]) for i in range(len(shape))]
    return LazyTensor(
        path=path,
        shape=shape,
        strides=tuple(steps),
        offset=start // element.itemsize,
        element=element,
        big_endian=header.code.startswith(">"),
        record=record,
        storage_id=storage_id,
    )
