"""The directory of a zip file, read without trusting it.

The standard library's `zipfile` resolves duplicate names silently, follows sizes wherever they
point and costs 10 ms to import; here every entry is checked against its neighbours and the file.

References:
    PKWARE, APPNOTE.TXT 6.3.10: 4.3.7 local header, 4.3.12 central directory, 4.3.14-16 end records.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice, pairwise

from vqdoctor.checkpoint.files import TRUNCATED, Damaged, OpenFile, printable
from vqdoctor.checkpoint.records import DeflatedRecord, StoredRecord

LOCAL = struct.Struct("<4s5H3I2H")
CENTRAL = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")
END64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR64 = struct.Struct("<4sIQI")
_MAX_COMMENT = 0xFFFF
_LONGEST_EXTRA = 1024
"""Bytes of an entry's extra fields that are looked at; the one that counts takes 28."""
_ENCRYPTED = 0x1
_STORED, _DEFLATED = 0, 8

MAX_DIRECTORY = 64 << 20
MAX_ENTRIES = 20_000
"""Records of a file, or one for each 5,000 bytes of it where that is more: a record is a storage."""
MAX_INFLATED = 256 << 20
"""Compressed records are inflated into memory, so all of them together must stay under this."""
FREE_INFLATED = 64 << 20
"""Bytes that compressed records may have; beyond, no more than `MAX_GROWTH` times what they are stored in."""
MAX_GROWTH = 5
"""Arrays of float32 shrink by 1.1 to 2.1, those of 16 different values by 4.8 (zlib, level 6)."""
MAX_RATIO = 100
"""Deflate reaches 1032:1 on zeros; real weights hardly shrink at all."""
RATIO_MATTERS_FROM = 1 << 20


@dataclass(frozen=True)
class Entry:
    """One entry of the directory.

    Attributes:
        name: its name.
        name_length: bytes of its name.
        method: 0 = stored, 8 = deflated.
        crc: CRC-32 of its contents; 0 = not recorded.
        stored: bytes that it takes in the file.
        size: bytes of its contents.
        header: position of its local header.
        listed: its bytes in the directory.
        end: position of the next entry, or of the directory.
    """

    name: str
    name_length: int
    method: int
    crc: int
    stored: int
    size: int
    header: int
    listed: bytes
    end: int = 0


def read_directory(file: OpenFile) -> Mapping[str, Entry]:
    """Return the entries by name, in the order of the directory.

    Raises:
        Damaged: if the directory is cut, contradicts itself or the file, or hides a bomb.
    """
    start, size, count = find_directory(file)
    if size > MAX_DIRECTORY:
        raise Damaged(f"its zip directory of {size >> 20} MiB is absurd")
    if count > max(MAX_ENTRIES, file.size // 5000):
        raise Damaged(f"its zip directory lists {count:,} records, more than a file of this size can hold")
    raw = list(islice(_parse(file.pread(start, size)), count + 1))
    if len(raw) != count:
        raise Damaged("corrupt: its zip directory is incomplete", TRUNCATED)
    entries = _bounded(raw, start)
    _refuse_bombs(list(entries.values()))
    return entries


def locate(file: OpenFile, entry: Entry) -> StoredRecord | DeflatedRecord:
    """Return the record of an entry; its local header says where it really begins.

    Raises:
        Damaged: if the local header contradicts the directory.
    """
    head = file.pread(entry.header, min(LOCAL.size + entry.name_length, entry.end - entry.header))
    signature, *_, name_length, extra_length = LOCAL.unpack_from(head)
    name = head[LOCAL.size : LOCAL.size + name_length]
    start = entry.header + LOCAL.size + name_length + extra_length
    if signature != b"PK\x03\x04" or name_of(name) != entry.name or start + entry.stored > entry.end:
        raise Damaged(f"corrupt: the record {printable(entry.name)} is not where the directory says")
    if entry.method == _STORED:
        return StoredRecord(file, entry.name, start, entry.size, entry.crc)
    return DeflatedRecord(file, entry.name, start, entry.stored, entry.size, entry.crc)


def first_name(head: bytes) -> str:
    """Return the name of the first entry of a zip file that starts with `head`; "" where it is none."""
    if not head.startswith(b"PK\x03\x04") or len(head) < LOCAL.size:
        return ""
    length = LOCAL.unpack_from(head)[-2]
    return name_of(head[LOCAL.size : LOCAL.size + length])


def find_directory(file: OpenFile) -> tuple[int, int, int]:
    """Return start, size and entry count of the central directory.

    Raises:
        Damaged: if it is not where the end of the file says.
    """
    tail_start = max(0, file.size - END.size - _MAX_COMMENT)
    tail = file.pread(tail_start, file.size - tail_start)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + END.size > len(tail):
        raise Damaged("truncated: the end of the zip file is missing", TRUNCATED)
    *_, count, size, start, comment = END.unpack_from(tail, at)
    if at + END.size + comment != len(tail):
        raise Damaged("corrupt: bytes follow the end of the zip file", TRUNCATED)
    limit = tail_start + at
    before = limit - LOCATOR64.size
    locator = file.pread(before, LOCATOR64.size) if before >= 0 else b""
    if count == 0xFFFF or 0xFFFFFFFF in (size, start) or locator.startswith(b"PK\x06\x07"):
        start, size, count, limit = _find_directory64(file, locator)
    if start + size != limit:
        raise Damaged("corrupt: its zip directory is not where it should be", TRUNCATED)
    return start, size, count


def _find_directory64(file: OpenFile, locator: bytes) -> tuple[int, int, int, int]:
    """Return start, size and count from the zip64 end record, and where that record begins."""
    if not locator.startswith(b"PK\x06\x07"):
        raise Damaged("corrupt: the zip64 end record is missing", TRUNCATED)
    _, _, at, _ = LOCATOR64.unpack(locator)
    signature, *_, count, size, start = END64.unpack(file.pread(at, END64.size))
    if signature != b"PK\x06\x06":
        raise Damaged("corrupt: the zip64 end record is missing", TRUNCATED)
    return start, size, count, at


def _parse(directory: bytes) -> Iterator[Entry]:
    at = 0
    while at < len(directory):
        fields = CENTRAL.unpack_from(directory, at)
        signature, flags, method = fields[0], fields[3], fields[4]
        crc, stored, size, name_length, extra_length, comment_length = fields[7:13]
        header = fields[16]
        begin, at = at, at + CENTRAL.size
        name = name_of(directory[at : at + name_length])
        extra = directory[at + name_length : at + name_length + extra_length]
        at += name_length + extra_length + comment_length
        if signature != b"PK\x01\x02" or at > len(directory):
            raise Damaged("corrupt: its zip directory is garbled", TRUNCATED)
        size, stored, header = _widen64(extra, size, stored, header)
        if flags & _ENCRYPTED:
            raise Damaged("an encrypted zip file", "unpack it first")
        if method not in (_STORED, _DEFLATED):
            raise Damaged(f"the record {printable(name)} is compressed in an unknown way ({method})")
        if method == _STORED and stored != size:
            raise Damaged(f"corrupt: the record {printable(name)} contradicts its own size")
        yield Entry(name, name_length, method, crc, stored, size, header, directory[begin:at])


def _widen64(extra: bytes, *values: int) -> list[int]:
    """Return the values, those of 0xFFFFFFFF replaced by the zip64 extra field's."""
    wide = list(values)
    at = 0
    while at + 4 <= min(len(extra), _LONGEST_EXTRA):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            numbers = [n for (n,) in struct.iter_unpack("<Q", extra[at + 4 : at + 4 + length // 8 * 8])]
            for i, value in enumerate(wide):
                if value == 0xFFFFFFFF and numbers:
                    wide[i] = numbers.pop(0)
        at += 4 + length
    return wide


def _bounded(raw: list[Entry], directory_start: int) -> dict[str, Entry]:
    """Return the entries by name, each bounded by the one after it in the file."""
    entries: dict[str, Entry] = {entry.name: entry for entry in raw}
    # torch looks names up without their case, so it would take another of the two than we do.
    if len({entry.name.lower() for entry in raw}) != len(raw):
        raise Damaged("corrupt: two records of the zip file have the same name, except for capital letters")
    if any("\0" in entry.name for entry in raw):
        raise Damaged("corrupt: a record of the zip file has a NUL character in its name")
    in_file = sorted(raw, key=lambda entry: entry.header)
    starts = [*(entry.header for entry in in_file), directory_start]
    for entry, (start, end) in zip(in_file, pairwise(starts), strict=True):
        if start + LOCAL.size + entry.stored > end:
            raise Damaged(f"corrupt: the record {printable(entry.name)} runs into another", TRUNCATED)
        entries[entry.name] = replace(entry, end=end)
    return entries


def _refuse_bombs(entries: list[Entry]) -> None:
    deflated = [entry for entry in entries if entry.method == _DEFLATED]
    for entry in deflated:
        if entry.size > RATIO_MATTERS_FROM and entry.size > MAX_RATIO * entry.stored:
            raise Damaged(
                f"a zip bomb: {printable(entry.name)} would inflate to {entry.size >> 20} MiB",
                "torch.save never compresses; do not trust this file",
            )
    most = max(FREE_INFLATED, MAX_GROWTH * sum(entry.stored for entry in deflated))
    if sum(entry.size for entry in deflated) > (most := min(most, MAX_INFLATED)):
        raise Damaged(
            f"its records are compressed, and larger than {most >> 20} MiB when inflated",
            "save it without compression (numpy.savez, zip -0)",
        )


def name_of(raw: bytes) -> str:
    """Return the name of an entry; bytes that are not UTF-8 are escaped."""
    return raw.decode("utf-8", "backslashreplace")
