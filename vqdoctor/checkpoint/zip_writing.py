"""Changing a copy of a zip file in place: checksums of records, and one record more at the end.

Nothing moves: every other record keeps its bytes and its position, on which torch's `mmap=True` relies.

References:
    PKWARE, APPNOTE.TXT 6.3.10: 4.3.7 local header, 4.3.9 data descriptor, 4.3.12 central directory,
    4.3.14-16 end records, 4.5.3 zip64.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import BinaryIO

from vqdoctor.checkpoint.files import Damaged, OpenFile, printable
from vqdoctor.checkpoint.patching import chunks_of, copy
from vqdoctor.checkpoint.records import StoredRecord
from vqdoctor.checkpoint.zip_directory import CENTRAL, END, END64, LOCAL, LOCATOR64, Entry, find_directory

_WIDE_FROM = 0xFFFFFFFF
"""Numbers from here on are in the zip64 fields."""
_LOCAL_CRC, _CENTRAL_CRC = 14, 16
_DESCRIBED, _UTF8 = 0x8, 0x800
_VERSION, _VERSION64 = 20, 45


def copy_records(file: OpenFile, out: BinaryIO, without: Entry | None) -> None:
    """Copy all records of a zip file; `without` is left out where it is the last one."""
    start, _, _ = find_directory(file)
    last = without is not None and without.end == start
    copy(file, out, 0, without.header if without is not None and last else start)


def renew_checksum(out: BinaryIO, entry: Entry, record: StoredRecord) -> int:
    """Write the checksum of a record's bytes as they now are beside them, and return it.

    It is in the local header, and behind the bytes if the header was written before they were known.

    Raises:
        Damaged: if the checksum that was there is not where it should be.
    """
    crc = 0
    for chunk in chunks_of(out, record.offset, record.size):
        crc = zlib.crc32(chunk, crc)
    old = struct.pack("<I", record.crc)
    out.seek(entry.header)
    flags = LOCAL.unpack(out.read(LOCAL.size))[2]
    behind = record.offset + record.size
    positions = [entry.header + _LOCAL_CRC]
    if flags & _DESCRIBED:
        out.seek(behind)
        signed = out.read(4) == b"PK\x07\x08"
        positions.append(behind + 4 if signed else behind)
    found = []
    for at in positions:
        out.seek(at)
        if out.read(4) == old:
            found.append(at)
    if not found:
        raise Damaged(f"corrupt: the checksums of {printable(entry.name)} contradict each other")
    for at in found:
        out.seek(at)
        out.write(struct.pack("<I", crc))
    return crc


def append_record(
    out: BinaryIO,
    file: OpenFile,
    entries: Mapping[str, Entry],
    name: str,
    data: bytes,
    crcs: Mapping[str, int],
) -> None:
    """End a copied zip file: a new record in place of any of that name, and the directory.

    Args:
        out: the copy, with all records but that one.
        file: the original.
        entries: its directory.
        name: name of the new record.
        data: its bytes.
        crcs: name of a record to its new checksum.
    """
    start, size, _ = find_directory(file)
    rest = file.pread(start + size, file.size - start - size)
    comment = rest[rest.rfind(b"PK\x05\x06") + END.size :]
    kept = []
    for entry in entries.values():
        crc = struct.pack("<I", crcs.get(entry.name, entry.crc))
        if entry.name != name:
            kept.append(entry.listed[:_CENTRAL_CRC] + crc + entry.listed[_CENTRAL_CRC + 4 :])
    header = out.seek(0, 2)
    raw = name.encode()
    told = (_UTF8, 0, 0, 0x21, zlib.crc32(data), len(data), len(data), len(raw))
    out.write(LOCAL.pack(b"PK\x03\x04", _VERSION, *told, 0) + raw + data)
    wide = struct.pack("<2HQ", 1, 8, header) if header >= _WIDE_FROM else b""
    version = _VERSION64 if wide else _VERSION
    offset = 0xFFFFFFFF if wide else header
    kept.append(
        CENTRAL.pack(b"PK\x01\x02", version, version, *told, len(wide), 0, 0, 0, 0, offset) + raw + wide
    )
    directory, start = b"".join(kept), header + LOCAL.size + len(raw) + len(data)
    out.write(directory + _ends(len(kept), len(directory), start, len(comment)) + comment)


def _ends(count: int, size: int, start: int, comment: int) -> bytes:
    """Return the end records: zip64's, as torch always writes it, and the old one."""
    locator = LOCATOR64.pack(b"PK\x06\x07", 0, start + size, 1)
    wide = END64.pack(b"PK\x06\x06", END64.size - 12, _VERSION64, _VERSION64, 0, 0, count, count, size, start)
    short = 0xFFFF if count >= min(_WIDE_FROM, 0xFFFF) else count
    size, start = (0xFFFFFFFF if n >= _WIDE_FROM else n for n in (size, start))
    return wide + locator + END.pack(b"PK\x05\x06", 0, 0, short, short, size, start, comment)
