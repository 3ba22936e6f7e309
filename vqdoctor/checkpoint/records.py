"""A record: a named run of bytes in a file, which one or several tensors share."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from vqdoctor.checkpoint.files import CHUNK, TRUNCATED, Damaged, OpenFile, printable

_HEAD = 1 << 16
"""Bytes at the start of a compressed record that can be had without the rest."""


class Record:
    """Bytes that can be had in part.

    Attributes:
        name: the record's name.
        size: its length in bytes.
    """

    name: str
    size: int

    def pread(self, start: int, size: int) -> bytes:
        """Return exactly these bytes, which may be unchecked.

        Raises:
            Damaged: if the record is shorter.
        """
        self._within(start, size)
        return self._read(start, size)

    def view(self, start: int, size: int) -> bytes | bytearray | memoryview:
        """Return these bytes, in one piece of memory."""
        return self.pread(start, size)

    def chunks(self, start: int, size: int) -> Iterator[bytes]:
        """Yield these bytes a few MiB at a time."""
        return (self.pread(at, min(CHUNK, start + size - at)) for at in range(start, start + size, CHUNK))

    def check(self) -> None:
        """Compare the whole record with its checksum, where one is recorded, on the first call.

        Raises:
            Damaged: if they differ.
        """

    def _read(self, start: int, size: int) -> bytes:
        raise NotImplementedError

    def _within(self, start: int, size: int) -> None:
        if start < 0 or size < 0 or start + size > self.size:
            what = f"corrupt: {printable(self.name)} is shorter than the tensors that it holds"
            raise Damaged(what, TRUNCATED)


@dataclass(frozen=True, eq=False)
class StoredRecord(Record):
    """A record that is in the file as it is.

    Attributes:
        file: the file.
        name: the record's name.
        offset: position of its first byte in the file.
        size: its length in bytes.
        crc: its CRC-32; 0 = not recorded (torch can be told not to compute it).
    """

    file: OpenFile
    name: str
    offset: int
    size: int
    crc: int = 0

    def view(self, start: int, size: int) -> bytes | bytearray:
        """Return these bytes, in one piece of memory."""
        self._within(start, size)
        return self.file.read(self.offset + start, size)

    def check(self) -> None:
        """Compare the record with its CRC."""
        if self.crc:
            _ = self._sound

    def _read(self, start: int, size: int) -> bytes:
        return self.file.pread(self.offset + start, size)

    @cached_property
    def _sound(self) -> bool:
        crc = 0
        for chunk in self.chunks(0, self.size):
            crc = zlib.crc32(chunk, crc)
        return expect_crc(self.name, crc, self.crc)


@dataclass(frozen=True, eq=False)
class DeflatedRecord(Record):
    """A compressed record: inflated into memory at its first use, never beyond its stated size."""

    file: OpenFile
    name: str
    offset: int
    stored: int
    size: int
    crc: int = 0

    @cached_property
    def _bytes(self) -> bytearray:
        data, at, crc = bytearray(self.size), 0, 0
        for piece in self._inflated():
            end = at + len(piece)
            if end > self.size:
                break
            data[at:end], at, crc = piece, end, zlib.crc32(piece, crc)
        else:
            if at == self.size:
                if self.crc:
                    expect_crc(self.name, crc, self.crc)
                return data
        raise Damaged(f"corrupt: {printable(self.name)} does not inflate to its stated size")

    def _inflated(self) -> Iterator[bytes]:
        """Yield the contents, some MiB at a time: in one piece, zlib would hold them twice."""
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        for chunk in self.file.chunks(self.offset, self.stored):
            while chunk and not inflater.eof:
                yield inflater.decompress(chunk, CHUNK)
                chunk = inflater.unconsumed_tail
        while not inflater.eof and (piece := inflater.decompress(b"", CHUNK)):
            yield piece

    def view(self, start: int, size: int) -> memoryview:
        """Return these bytes where they are in memory."""
        self._within(start, size)
        return memoryview(self._bytes)[start : start + size]

    def check(self) -> None:
        """Inflate the record, which checks it."""
        _ = self._bytes

    def _read(self, start: int, size: int) -> bytes:
        if start + size <= _HEAD and "_bytes" not in self.__dict__:
            head = zlib.decompressobj(-zlib.MAX_WBITS)
            begun = head.decompress(self.file.pread(self.offset, min(self.stored, _HEAD)), start + size)
            if len(begun) == start + size:
                return begun[start:]
        return bytes(self._bytes[start : start + size])


class JoinedRecord(Record):
    """Runs of bytes of other records, one after the other.

    Attributes:
        name: what it is called in an error.
        parts: (record, first byte, bytes) of each run.
    """

    def __init__(self, name: str, parts: Sequence[tuple[Record, int, int]]) -> None:
        self.name, self.parts = name, tuple(parts)
        self.size = sum(size for _, _, size in parts)

    def check(self) -> None:
        """Check each record."""
        for record, _, _ in self.parts:
            record.check()

    def _read(self, start: int, size: int) -> bytes:
        pieces, at = [], 0
        for record, first, length in self.parts:
            low, high = max(start, at), min(start + size, at + length)
            if low < high:
                pieces.append(record.pread(first + low - at, high - low))
            at += length
        return b"".join(pieces)


class MemoryRecord(Record):
    """Bytes from inside the pickle itself, such as those of a numpy array; checked with the pickle."""

    def __init__(self, data: bytes) -> None:
        self.name = "an array"
        self.size = len(data)
        self._data = data

    def _read(self, start: int, size: int) -> bytes:
        return self._data[start : start + size]


def expect_crc(name: str, found: int, recorded: int) -> bool:
    """Return True if the checksums agree.

    Raises:
        Damaged: if they differ.
    """
    if found != recorded:
        raise Damaged(f"damaged: the bytes of {printable(name)} do not match their checksum", TRUNCATED)
    return True
