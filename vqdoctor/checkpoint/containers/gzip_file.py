"""A checkpoint inside a gzip file: inflated to a temporary file without a name, a few MiB at a time."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import BinaryIO

from vqdoctor.checkpoint.dtypes import AnyArray
from vqdoctor.checkpoint.files import TRUNCATED, Damaged, OpenFile, SpooledFile
from vqdoctor.checkpoint.history import Note
from vqdoctor.checkpoint.model import Checkpoint, Container
from vqdoctor.checkpoint.opening import container_of

NAME = "gzip"
_MAGIC = b"\x1f\x8b"
_WINDOW = 16 + zlib.MAX_WBITS
_STEP = 1 << 20
_RATIO_MATTERS_FROM = 256 << 20
"""A small file may hold a codebook of zeros."""
_MAX_RATIO = 5
"""A larger one inflates for a second or two: float32 weights shrink by 1.08, those of bfloat16 in float32 by
2.1, float32 numbers of 16 values by 4.8 (zlib, level 6)."""


def sniff(head: bytes) -> bool:
    """Return whether this starts with gzip's magic bytes."""
    return head.startswith(_MAGIC)


def open_gzip(file: OpenFile) -> Checkpoint:
    """Inflate the file, and open what is inside.

    Raises:
        Damaged: if it is cut, does not match its checksum, is a bomb, or holds another gzip file.
    """
    inner = SpooledFile(file.path, _inflated(file))
    container = container_of(inner)
    if container.name == NAME:
        raise Damaged("a gzip file inside a gzip file", "gunzip it")
    found = container.open(inner)
    return replace(
        found,
        container=NAME,
        bytes=file.size,
        file=file,
        list_records=tuple,
        notes=(f"inside the gzip file is one of the kind {found.container}", *found.notes),
    )


def _inflated(file: OpenFile) -> Iterator[bytes]:
    """Yield the contents of each member."""
    inflater, read, written = zlib.decompressobj(_WINDOW), 0, 0
    for chunk in file.chunks(0, file.size):
        read += len(chunk)
        while chunk:
            if inflater.eof:
                if not (chunk := chunk.lstrip(b"\x00")):  # padding behind the last member
                    break
                inflater = zlib.decompressobj(_WINDOW)
            data = inflater.decompress(chunk, _STEP)
            written += len(data)
            if written > max(_RATIO_MATTERS_FROM, _MAX_RATIO * read):
                what = f"a gzip bomb: it inflates to more than {_MAX_RATIO} times its size"
                raise Damaged(what, "gunzip it, if you know where it is from")
            yield data
            chunk = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
    while not inflater.eof:
        if not (data := inflater.decompress(b"", _STEP)):
            raise Damaged("truncated: the end of the gzip file is missing", TRUNCATED)
        yield data


def write_gzip(checkpoint: Checkpoint, out: BinaryIO, changes: Mapping[str, AnyArray], note: Note) -> None:
    """Refuse: the file that is inside is written, and not this one.

    Raises:
        Damaged: with the way to that file.
    """
    raise Damaged("a gzip file, which is only read", "gunzip it first")


CONTAINER = Container(name=NAME, suffixes=(), sniff=sniff, open=open_gzip, write=write_gzip)
