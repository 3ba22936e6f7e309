"""Element types: how each is stored, and how it becomes a numpy array.

References:
    Micikevicius et al., "FP8 Formats for Deep Learning", arXiv:2209.05433 (e4m3fn, e5m2);
    Noune et al., arXiv:2206.02915 (the "fnuz" variants); OCP Microscaling Formats v1.0 (e8m0fnu).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from vqdoctor.core.frozen import frozen

AnyArray = NDArray[np.generic]


@frozen
class DType:
    """One element type.

    Attributes:
        name: as torch names it, without "torch.".
        stored: numpy code of the stored element, without byte order.
        widen: turns stored elements (native byte order) into an array of a numpy type.
        narrow: turns values into stored elements; None where a plain cast does.
    """

    name: str
    stored: str
    widen: Callable[[AnyArray], AnyArray] | None = None
    narrow: Callable[[AnyArray], AnyArray] | None = None

    @property
    def itemsize(self) -> int:
        """Bytes that one element takes in the file."""
        return int(self.stored[1:])

    def decode(self, raw: AnyArray) -> AnyArray:
        """Return raw elements, of `stored` in either byte order, as a numpy array of native order."""
        native = raw.astype(self.stored, copy=False)
        return native if self.widen is None else self.widen(native)

    def encode(self, values: AnyArray) -> AnyArray:
        """Return values as elements of `stored`, native byte order: rounded to the nearest, ties to even.

        Raises:
            ValueError: if a finite value is too large, an integer type cannot hold it, or the type is one
                that is only read.
        """
        if self.narrow is not None:
            raw = self.narrow(values)
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                raw = values.astype(self.stored)
        back = self.decode(raw)
        if self.stored[0] in "iu" and self.widen is None:
            fits = back == values
        else:
            fits = np.isfinite(back) | ~np.isfinite(values)
        if not fits.all():
            raise ValueError(f"a value does not fit into {self.name}")
        return raw

    def rounded(self, values: AnyArray) -> AnyArray:
        """Return values as they are read again after being stored."""
        return self.decode(self.encode(values))


def _bfloat16(raw: AnyArray) -> AnyArray:
    """A bfloat16 is the upper half of a float32."""
    return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _to_bfloat16(values: AnyArray) -> AnyArray:
    """Round the lower half of a float32 away; the carry may well run into the exponent."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = ((bits.astype(np.uint64) + np.uint64(0x7FFF) + odd) >> np.uint64(16)).astype(np.uint16)
    # Rounding could turn a NaN whose bits are all in the lower half into infinity.
    quiet = (bits >> np.uint32(16)).astype(np.uint16) | np.uint16(0x40)
    return np.where(np.isnan(values), quiet, rounded)


def _widen_float8(name: str, raw: AnyArray) -> AnyArray:
    return np.asarray(_float8_table(name)[raw])


def _no_scale(values: AnyArray) -> AnyArray:
    raise ValueError("float8_e8m0fnu holds the scales of other tensors, and is only read")


def _to_float8(name: str, values: AnyArray) -> AnyArray:
    """Round values to the nearest byte of a type, ties to the even byte.

    A type's magnitudes are its bytes from 0 on, in order. The byte behind the last finite one is what
    overflow gives, and its limit is half a step away like any other.
    """
    half = _float8_table(name)[:0x80].astype(np.float64)
    last = int(np.flatnonzero(np.isfinite(half))[-1])
    steps = np.append(half[: last + 1], 2 * half[last] - half[last - 1])
    limits = (steps[:-1] + steps[1:]) / 2
    size = np.abs(values.astype(np.float64))
    code = np.searchsorted(limits, size)
    code += (code % 2 == 1) & (size == limits[np.minimum(code, last)])
    one_nan = last == 0x7F  # the "fnuz" types have it where minus zero would be, and no infinity
    code = np.where(np.isnan(size), 0x80 if one_nan else 0x7F, code)
    return np.where(np.signbit(values) & ((code > 0) | (not one_nan)), code | 0x80, code).astype(np.uint8)


_FLOAT8 = {
    "float8_e4m3fn": (3, 7), "float8_e4m3fnuz": (3, 8), "float8_e5m2": (2, 15), "float8_e5m2fnuz": (2, 16),
    "float8_e8m0fnu": (0, 127),
}  # fmt: skip
"""Bits of the mantissa and bias of the exponent; e8m0fnu is a power of two without sign or mantissa."""


@cache
def _float8_table(name: str) -> NDArray[np.float32]:
    """Return the values of the 256 bytes of an 8-bit float: sign, exponent, mantissa."""
    mantissa, bias = _FLOAT8[name]
    if mantissa == 0:
        return np.array([math.ldexp(1, byte - bias) for byte in range(255)] + [math.nan], np.float32)

    def value(byte: int) -> float:
        size, sign = byte & 0x7F, -1.0 if byte & 0x80 else 1.0
        if name.endswith("fnuz"):
            if byte == 0x80:
                return math.nan
        elif name == "float8_e4m3fn" and size == 0x7F:
            return math.nan
        elif name == "float8_e5m2" and size >= 0x7C:
            return sign * math.inf if size == 0x7C else math.nan
        exponent, fraction = size >> mantissa, (size & ((1 << mantissa) - 1)) / (1 << mantissa)
        if exponent == 0:
            return sign * math.ldexp(fraction, 1 - bias)
        return sign * math.ldexp(1 + fraction, exponent - bias)

    return np.array([value(byte) for byte in range(256)], np.float32)


_PLAIN = {
    "float64": "f8", "float32": "f4", "float16": "f2",
    "int64": "i8", "int32": "i4", "int16": "i2", "int8": "i1",
    "uint64": "u8", "uint32": "u4", "uint16": "u2", "uint8": "u1",
    "complex128": "c16", "complex64": "c8",
}  # fmt: skip

DTYPES: dict[str, DType] = {
    dtype.name: dtype
    for dtype in (
        *(DType(name=name, stored=code) for name, code in _PLAIN.items()),
        *(
            DType(
                name=name,
                stored="u1",
                widen=partial(_widen_float8, name),
                narrow=_no_scale if name == "float8_e8m0fnu" else partial(_to_float8, name),
            )
            for name in _FLOAT8
        ),
        DType(name="bfloat16", stored="u2", widen=_bfloat16, narrow=_to_bfloat16),
        # A stored byte other than 0 and 1 would be no valid numpy bool.
        DType(
            name="bool",
            stored="u1",
            widen=lambda raw: np.asarray(raw != 0),
            narrow=lambda values: np.asarray(values != 0, np.uint8),
        ),
    )
}
"""The element types that are read, by torch's name: all but the packed, quantized and half complex."""
