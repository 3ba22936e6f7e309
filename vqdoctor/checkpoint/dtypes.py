"""Element types: how each is stored, and how it becomes a numpy array.

References:
    Micikevicius et al., "FP8 Formats for Deep Learning", arXiv:2209.05433 (e4m3fn, e5m2);
    Noune et al., arXiv:2206.02915 (the "fnuz" variants); OCP Microscaling Formats v1.0 (e8m0fnu).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

AnyArray = NDArray[np.generic]


@dataclass(frozen=True, kw_only=True)
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


def _to_bool(values: AnyArray) -> AnyArray:
    return np.asarray(values != 0, np.uint8)


def _bool(raw: AnyArray) -> AnyArray:
    """A stored byte other than 0 and 1 would be no valid numpy bool."""
    return np.asarray(raw != 0)


def _float8(name: str) -> Callable[[AnyArray], AnyArray]:
    return lambda raw: np.asarray(_FLOAT8_TABLES[name]()[raw])


def _no_scale(values: AnyArray) -> AnyArray:
    raise ValueError("float8_e8m0fnu holds the scales of other tensors, and is only read")


def _to_float8(name: str) -> Callable[[AnyArray], AnyArray]:
    """Return what rounds values to the nearest byte of a type, ties to the even byte.

    A type's magnitudes are its bytes from 0 on, in order. The byte behind the last finite one is what
    overflow gives, and its limit is half a step away like any other.
    """

    def narrow(values: AnyArray) -> AnyArray:
        half = _FLOAT8_TABLES[name]()[:0x80].astype(np.float64)
        last = int(np.flatnonzero(np.isfinite(half))[-1])
        steps = np.append(half[: last + 1], 2 * half[last] - half[last - 1])
        limits = (steps[:-1] + steps[1:]) / 2
        size = np.abs(values.astype(np.float64))
        code = np.searchsorted(limits, size)
        code += (code % 2 == 1) & (size == limits[np.minimum(code, last)])
        one_nan = last == 0x7F  # the "fnuz" types have it where minus zero would be, and no infinity
        code = np.where(np.isnan(size), 0x80 if one_nan else 0x7F, code)
        return np.where(np.signbit(values) & ((code > 0) | (not one_nan)), code | 0x80, code).astype(np.uint8)

    return narrow


def _float8_table(mantissa: int, bias: int, special: Callable[[int], float | None]) -> NDArray[np.float32]:
    """Return the values of the 256 bytes of an 8-bit float: sign, exponent, mantissa."""

    def value(byte: int) -> float:
        if (found := special(byte)) is not None:
            return found
        sign = -1.0 if byte & 0x80 else 1.0
        exponent, fraction = (byte & 0x7F) >> mantissa, (byte & ((1 << mantissa) - 1)) / (1 << mantissa)
        if exponent == 0:
            return sign * math.ldexp(fraction, 1 - bias)
        return sign * math.ldexp(1 + fraction, exponent - bias)

    return np.array([value(byte) for byte in range(256)], np.float32)


def _e5m2_special(byte: int) -> float | None:
    if byte & 0x7C != 0x7C:
        return None
    if byte & 0x03:
        return math.nan
    return -math.inf if byte & 0x80 else math.inf


@cache
def _e4m3fn() -> NDArray[np.float32]:
    return _float8_table(3, 7, lambda byte: math.nan if byte & 0x7F == 0x7F else None)


@cache
def _e4m3fnuz() -> NDArray[np.float32]:
    return _float8_table(3, 8, lambda byte: math.nan if byte == 0x80 else None)


@cache
def _e5m2() -> NDArray[np.float32]:
    return _float8_table(2, 15, _e5m2_special)


@cache
def _e5m2fnuz() -> NDArray[np.float32]:
    return _float8_table(2, 16, lambda byte: math.nan if byte == 0x80 else None)


@cache
def _e8m0fnu() -> NDArray[np.float32]:
    """A power of two without sign or mantissa."""
    return np.array([math.ldexp(1, byte - 127) for byte in range(255)] + [math.nan], np.float32)


_FLOAT8_TABLES = {
    "float8_e4m3fn": _e4m3fn,
    "float8_e4m3fnuz": _e4m3fnuz,
    "float8_e5m2": _e5m2,
    "float8_e5m2fnuz": _e5m2fnuz,
    "float8_e8m0fnu": _e8m0fnu,
}

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
                widen=_float8(name),
                narrow=_no_scale if name == "float8_e8m0fnu" else _to_float8(name),
            )
            for name in _FLOAT8_TABLES
        ),
        DType(name="bfloat16", stored="u2", widen=_bfloat16, narrow=_to_bfloat16),
        DType(name="bool", stored="u1", widen=_bool, narrow=_to_bool),
    )
}
"""The element types that are read, by torch's name: all but the packed, quantized and half complex."""
