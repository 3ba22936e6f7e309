"""The array format of numpy, `.npy`: a header that is a Python literal, and the elements behind it.

References:
    numpy/lib/_format_impl.py; NEP 1, "A Simple File Format for NumPy Arrays".
"""

from __future__ import annotations

import ast
from collections.abc import Hashable
from math import prod
from pathlib import Path

from vqdoctor.checkpoint.dtypes import DTYPES
from vqdoctor.checkpoint.files import TRUNCATED, Damaged, printable
from vqdoctor.checkpoint.records import JoinedRecord, Record
from vqdoctor.checkpoint.tensor import LazyTensor

MAGIC = b"\x93NUMPY"
MAX_HEADER = 1 << 16
_CODES = {dtype.stored: dtype for dtype in DTYPES.values() if dtype.widen is None} | {"b1": DTYPES["bool"]}


def array_in(record: Record, path: Path, storage_id: Hashable) -> LazyTensor | str:
    """Return the array that a record holds, or the name of its element type where that is not read.

    An array of objects is a pickle, which stays where it is.

    Raises:
        Damaged: if the header is malformed, or states more than the record holds.
    """
    head = record.pread(0, min(record.size, 12))
    if len(head) < 10 or not head.startswith(MAGIC) or head[6] not in (1, 2, 3):
        raise Damaged(f"corrupt: {printable(record.name)} is not a numpy array", TRUNCATED)
    width = 2 if head[6] == 1 else 4
    length = int.from_bytes(head[8 : 8 + width], "little")
    start = 8 + width + length
    if length > MAX_HEADER or start > record.size:
        raise Damaged(f"corrupt: the header of {printable(record.name)} is cut or absurdly long", TRUNCATED)
    try:
        stated = ast.literal_eval(record.pread(8 + width, length).decode("utf-8"))
        code, fortran, shape = (stated[key] for key in ("descr", "fortran_order", "shape"))
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError) as error:
        raise Damaged(f"corrupt: the header of {printable(record.name)} is garbled", TRUNCATED) from error
    if not isinstance(shape, tuple) or any(type(n) is not int or not 0 <= n < 1 << 63 for n in shape):
        raise Damaged(f"corrupt: the shape of {printable(record.name)} is not a tuple of sizes", TRUNCATED)
    element = _CODES.get(code.lstrip("<>|=")) if isinstance(code, str) else None
    if element is None:
        return "objects" if code == "|O" else "other types"
    if start % element.itemsize:
        record, start = JoinedRecord(record.name, [(record, start, record.size - start)]), 0
    if len(shape) > 64 or prod(shape) * element.itemsize > record.size - start:
        raise Damaged(f"truncated: {printable(record.name)} states more than it holds", TRUNCATED)
    steps = [prod(shape[:i] if fortran else shape[i + 1 :]) for i in range(len(shape))]
    return LazyTensor(
        path=path,
        shape=shape,
        strides=tuple(steps),
        offset=start // element.itemsize,
        element=element,
        big_endian=code.startswith(">"),
        record=record,
        storage_id=storage_id,
    )
