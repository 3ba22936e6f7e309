"""A checkpoint: its tree, its tensors, and what is odd about it."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from vqdoctor.checkpoint.dtypes import AnyArray
from vqdoctor.checkpoint.files import OpenFile, guarded
from vqdoctor.checkpoint.history import Note
from vqdoctor.checkpoint.records import DeflatedRecord, StoredRecord, expect_crc
from vqdoctor.checkpoint.tensor import LazyTensor
from vqdoctor.core.frozen import frozen

FINGERPRINT_BLOCKS = 64
FINGERPRINT_BLOCK = 4096

Progress = Callable[[int, int], None]
Identity = bytes
FileRecord = StoredRecord | DeflatedRecord


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """One opened file.

    Attributes:
        path: as it was named, or the file that was found in the folder that was named.
        container: the kind of file ("torch-zip", "safetensors").
        bytes: size of the file, with those of its parts.
        tree: nesting of dict, list and tuple, at most 200 levels and without cycles; the leaves are
            str, int, float, bool, None, `LazyTensor` and `Inert`.
        tensors: every tensor by its dotted path, in file order.
        harmless: foreign globals that the file names, except loaders and process starters
            ("argparse.Namespace").
        dangerous: those that could execute something in an ordinary unpickler ("os.system").
        notes: remarks of the reader, one line each.
        history: what earlier fixes noted in the file, oldest first.
        file: the open file.
        directory: what identifies the file without reading it all: names, sizes, checksums.
        list_records: returns all records of the file, for `verify`.
        parts: the files that this one, an index, says its tensors lie in.
        skipped: the tensors that are not among `tensors`, by key, each with the reason.
    """

    path: Path
    container: str
    bytes: int
    tree: Any = field(repr=False)
    tensors: Mapping[str, LazyTensor] = field(repr=False)
    harmless: tuple[str, ...] = ()
    dangerous: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    history: tuple[Note, ...] = ()
    file: OpenFile = field(repr=False)
    directory: Identity = field(repr=False)
    list_records: Callable[[], Sequence[FileRecord]] = field(repr=False, default=tuple)
    parts: tuple[Checkpoint, ...] = field(repr=False, default=())
    skipped: Mapping[str, str] = field(repr=False, default_factory=dict)

    def fingerprint(self, tensors: Iterable[LazyTensor]) -> str:
        """Return a cheap identity of the file, as 64 hexadecimal digits.

        It covers the size, the directory (names, sizes, checksums where recorded), all bytes of
        `tensors`, in any order, and 64 spread blocks of 4 KiB. It does not prove the rest equal.

        Raises:
            CheckpointError: if the bytes are gone.
        """
        digest = hashlib.sha256(f"vqdoctor 1 {self.container} {self.bytes}\n".encode())
        digest.update(hashlib.sha256(self.directory).digest())
        with guarded(self.path):
            for tensor in sorted(tensors, key=lambda tensor: tensor.key):
                head = f"{tensor.key} {tensor.dtype} {tensor.shape} {tensor.strides}\n"
                digest.update(head.encode("utf-8", "backslashreplace"))
                for chunk in tensor.raw_chunks():
                    digest.update(chunk)
            last = max(0, self.file.size - FINGERPRINT_BLOCK)
            for start in {last * i // (FINGERPRINT_BLOCKS - 1): None for i in range(FINGERPRINT_BLOCKS)}:
                digest.update(self.file.pread(start, min(FINGERPRINT_BLOCK, self.file.size - start)))
            for part in self.parts:
                digest.update(part.fingerprint(()).encode())
        return digest.hexdigest()

    def verify(self, progress: Progress | None = None) -> str:
        """Read every byte, compare every record with its checksum, and return the file's sha256.

        Of a checkpoint in several files, the sums of the index and of each part, in hexadecimal digits, are
        summed again.

        Args:
            progress: called now and then with the bytes read so far and the bytes in all.

        Raises:
            CheckpointError: if a checksum does not match, or bytes are gone.
        """
        read = 0

        def count(size: int) -> None:
            nonlocal read
            read += size
            if progress is not None:
                progress(read, self.bytes)

        sums = [file._verify(count) for file in (self, *self.parts)]
        return hashlib.sha256("".join(sums).encode()).hexdigest() if self.parts else sums[0]

    def _verify(self, count: Callable[[int], None]) -> str:
        """Verify this one file, and tell how many bytes were read."""
        with guarded(self.path):
            digest = hashlib.sha256()
            for start, size, record in self._pieces():
                crc = 0
                for chunk in self.file.chunks(start, size):
                    digest.update(chunk)
                    if record is not None:
                        crc = zlib.crc32(chunk, crc)
                    count(len(chunk))
                if record is not None and record.crc:
                    expect_crc(record.name, crc, record.crc)
            return digest.hexdigest()

    def _pieces(self) -> Iterable[tuple[int, int, StoredRecord | None]]:
        """Yield the whole file as (start, size, record): records, and None for what lies between."""
        at = 0
        for record in sorted(self.list_records(), key=lambda record: record.offset):
            if isinstance(record, DeflatedRecord):
                # Its checksum is of the inflated bytes; the stored ones count as a gap.
                record.check()
                continue
            yield at, record.offset - at, None
            yield record.offset, record.size, record
            at = record.offset + record.size
        yield at, self.file.size - at, None


@frozen
class Container:
    """One kind of file. One file in `containers/` defines one, as `CONTAINER`.

    Attributes:
        name: what reports call it.
        suffixes: endings of names that are worth an attempt when the first bytes are unknown:
            the error of `open` will be more precise than "unknown".
        sniff: whether the first bytes of a file look like this kind.
        open: reads the directory and the tree. Raises `Damaged`, or anything else on hostile bytes.
        write: writes the file again into another, open for reading and writing, with the values of some
            tensors changed, by key, and one note more in its history. Raises `Damaged` where a tensor
            cannot be written.
    """

    name: str
    suffixes: tuple[str, ...]
    sniff: Callable[[bytes], bool]
    open: Callable[[OpenFile], Checkpoint]
    write: Callable[[Checkpoint, BinaryIO, Mapping[str, AnyArray], Note], None]
