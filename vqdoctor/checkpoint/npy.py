"""numpy's own files, read without trusting them: a header of text, and the elements.

The header is matched, not evaluated, and compared with the bytes that follow before anything is allocated.

References:
    numpy.lib.format, "Format Version 1.0" to "3.0".
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqdoctor.checkpoint.files import TRUNCATED, Damaged, printable
from vqdoctor.checkpoint.records import Record
from vqdoctor.checkpoint.tensor import MAX_DIMENSIONS

MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 1 << 16
_HEADER = re.compile(
    r"\{'descr': '(?P<type>[<>|=]?[?biufcSUOVmM]\d{0,9}(?:\[\w{1,12}\])?)', "
    r"'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<shape>[\d, L]{0,2000})\),? *\}\s*"
)
_STRUCTURED = "{'descr': ["


@dataclass(frozen=True)
class Header:
    """The header of a .npy file.

    Attributes:
        code: numpy's code of the element type ("<f4"); "" for one that is made of several.
        fortran: whether the first dimension varies fastest.
        shape: the array's shape.
        start: position of the first element.
    """

    code: str
    fortran: bool
    shape: tuple[int, ...]
    start: int


def read_header(record: Record) -> Header:
    """Return the header of a .npy file that a record holds.

    Raises:
        Damaged: if it is malformed, or states an impossible shape.
    """
    head = record.pread(0, min(record.size, 12))
    wide = head[6:7] in (b"\x02", b"\x03")
    start = 12 if wide else 10
    if not head.startswith(MAGIC) or head[6:7] not in (b"\x01", b"\x02", b"\x03") or len(head) < start:
        raise Damaged(f"{printable(record.name)} is not a numpy array", "write it with numpy.savez")
    length = int.from_bytes(head[8:start], "little")
    if length > _LONGEST_HEADER or start + length > record.size:
        what = f"corrupt: the header of {printable(record.name)} is cut or absurdly long"
        raise Damaged(what, TRUNCATED)
    text = record.pread(start, length).decode("latin-1")
    if text.startswith(_STRUCTURED):
        return Header("", False, (), start + length)
    found = _HEADER.fullmatch(text)
    if found is None:
        what = f"corrupt: the header of {printable(record.name)} is not one that numpy writes"
        raise Damaged(what, TRUNCATED)
    shape = tuple(int(size.rstrip("L")) for size in found["shape"].replace(" ", "").split(",") if size)
    if len(shape) > MAX_DIMENSIONS or any(size >= 1 << 63 for size in shape):
        raise Damaged(f"forged: {printable(record.name)} states an impossible shape")
    return Header(found["type"], found["fortran"] == "True", shape, start + length)


def read_npy(record: Record) -> NDArray[np.generic]:
    """Return the array of a .npy file that a record holds, which can be written to.

    Raises:
        Damaged: if the header is malformed, holds Python objects, or claims other than the bytes that follow.
    """
    record.check()
    header = read_header(record)
    if header.code.lstrip("<>|=")[:1] in ("O", ""):
        raise Damaged("it holds pickled Python objects or records", "save plain arrays with numpy.savez")
    dtype = np.dtype(header.code)
    claimed, held = math.prod(header.shape) * dtype.itemsize, record.size - header.start
    if claimed != held:
        raise Damaged(f"its header claims {claimed:,} bytes of values, and it holds {held:,}", TRUNCATED)
    if not claimed:
        return np.zeros(header.shape, dtype)
    flat = np.frombuffer(record.view(header.start, claimed), dtype)
    if not (flat.flags.writeable and flat.flags.aligned):
        flat = flat.copy()
    return np.ascontiguousarray(flat.reshape(header.shape, order="F" if header.fortran else "C"))
