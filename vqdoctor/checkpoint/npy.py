"""numpy's own files, read without trusting them: a header of text, and the elements.

The header is matched, not evaluated, and compared with the bytes that follow before anything is allocated.

References:
    numpy.lib.format, "Format Version 1.0" to "3.0".
"""

from __future__ import annotations

import math
import re

import numpy as np
from numpy.typing import NDArray

from vqdoctor.checkpoint.files import TRUNCATED, Damaged, printable
from vqdoctor.checkpoint.records import Record
from vqdoctor.checkpoint.tensor import MAX_DIMENSIONS

MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 1 << 14
_HEADER = re.compile(
    r"\{'descr': '(?P<type>[<>|=]?[?biufcSUO]\d{0,9})', 'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<shape>[\d, L]{0,2000})\),? *\}\s*"
)


def read_npy(record: Record) -> NDArray[np.generic]:
    """Return the array of a .npy file that a record holds, as a copy that can be written to.

    Raises:
        Damaged: if the header is malformed, holds Python objects, or claims other than the bytes that follow.
    """
    record.check()
    head = record.pread(0, min(record.size, 12))
    wide = head[6:7] in (b"\x02", b"\x03")
    start = 12 if wide else 10
    if not head.startswith(MAGIC) or head[6:7] not in (b"\x01", b"\x02", b"\x03") or len(head) < start:
        raise Damaged(f"{printable(record.name)} is not a numpy array", "write it with numpy.savez")
    length = int.from_bytes(head[8:start], "little")
    if length > _LONGEST_HEADER:
        raise Damaged("corrupt: the header of its numpy array is absurdly long", TRUNCATED)
    text = record.pread(start, length).decode("latin-1")
    found = _HEADER.fullmatch(text)
    if found is None or found["type"].lstrip("<>|=").startswith("O"):
        if "O" in text:
            raise Damaged("it holds pickled Python objects", "save plain arrays with numpy.savez")
        raise Damaged("corrupt: the header of its numpy array is not one that numpy writes", TRUNCATED)
    shape = tuple(int(size.rstrip("L")) for size in found["shape"].replace(" ", "").split(",") if size)
    dtype = np.dtype(found["type"])
    if len(shape) > MAX_DIMENSIONS or any(size >= 1 << 63 for size in shape):
        raise Damaged("forged: its numpy array states an impossible shape")
    claimed = math.prod(shape) * dtype.itemsize
    if claimed != record.size - start - length:
        held = record.size - start - length
        raise Damaged(f"its header claims {claimed:,} bytes of values, and it holds {held:,}", TRUNCATED)
    if not claimed:
        return np.zeros(shape, dtype)
    flat = np.frombuffer(record.view(start + length, claimed), dtype)
    return flat.reshape(shape, order="F" if found["fortran"] == "True" else "C").copy()
