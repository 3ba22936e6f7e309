"""The format of `torch.save` before torch 1.6, still written by `_use_new_zipfile_serialization=False`.

Five pickles (a magic number, a protocol, the machine, the tree, the keys of its storages), then each storage
behind its number of elements. The storages have no checksums.

References:
    torch/serialization.py (`_legacy_save`, `_legacy_load`), torch/csrc/serialization.cpp in pytorch/pytorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from vqdoctor.checkpoint.dtypes import AnyArray
from vqdoctor.checkpoint.files import TRUNCATED, Damaged, OpenFile, printable
from vqdoctor.checkpoint.history import MAX_BYTES, RECORD, Note, read_history, write_history
from vqdoctor.checkpoint.model import Checkpoint, Container
from vqdoctor.checkpoint.patching import copy, patch
from vqdoctor.checkpoint.pickles.machine import EndsEarly, unpickle_first
from vqdoctor.checkpoint.pickles.vocabulary import TorchVocabulary
from vqdoctor.checkpoint.records import StoredRecord
from vqdoctor.checkpoint.settling import settle
from vqdoctor.checkpoint.tree import Global, Inert, flatten, left_out

NAME = "torch-legacy"
MAX_PICKLE = 64 << 20
_FIRST_WINDOW = 1 << 16
_WINDOWS_GROW = 16
_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
_PROTOCOL = 1001
_COUNT = 8
_FOOTER = RECORD.encode()
"""Ends a file that a fix wrote: torch reads no further than the last storage."""
_QUANTIZED = {"QInt8Storage": 1, "QUInt8Storage": 1, "QInt32Storage": 4, "QUInt4x2Storage": 1}
"""Bytes of an element, in storages that are passed over."""


@dataclass(kw_only=True)
class _Vocabulary(TorchVocabulary):
    """A torch file's names; an old file says more of its storages, and gives its classes with their source.

    Attributes:
        sizes: bytes of each storage's element, and its elements, by key.
        records: the storages by key, whose places come after the tree.
    """

    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    records: dict[str, StoredRecord] = field(default_factory=dict)

    def persistent(self, pid: object) -> Any:
        match pid:
            case ("module", Global() as kind, *_):
                return kind
            case ("storage", Global() as kind, str(key), place, int(numel), view):
                found = super().persistent(("storage", kind, key, place, numel))
                dtype = None if isinstance(found, Inert) else found.dtype
                self.sizes[key] = dtype.itemsize if dtype else _QUANTIZED.get(kind.name, 1), numel
                if dtype:
                    _place(self.records[key], dtype.itemsize * numel)
                return found if view is None else Inert("torch", "a view of a storage")
        return super().persistent(pid)


def _place(record: StoredRecord, size: int, offset: int = 0) -> None:
    """Note the place of a storage, which comes after the tree."""
    object.__setattr__(record, "size", size)
    object.__setattr__(record, "offset", offset)


def sniff(head: bytes) -> bool:
    """Return whether this starts with torch's magic number, as a pickle."""
    return head.startswith(_MAGIC)


def open_torch_legacy(file: OpenFile) -> Checkpoint:
    """Read the pickles; the storages stay where they are.

    Raises:
        Damaged: if a pickle or a storage is malformed or cut.
    """

    def find(key: str) -> StoredRecord:
        return vocabulary.records.setdefault(key, StoredRecord(file, key, 0, file.size))

    at, vocabulary = 0, _Vocabulary(path=file.path, find_record=find)
    for name, is_right in (
        ("magic number", lambda value: isinstance(value, int)),
        ("protocol", lambda value: value == _PROTOCOL),
        ("description of the machine", lambda value: isinstance(value, dict)),
    ):
        value, at = _unpickle(file, at, vocabulary)
        if not is_right(value):
            raise Damaged(f"corrupt: its {name} is not what torch writes", TRUNCATED)
    built, at = _unpickle(file, at, vocabulary)
    keys, at = _unpickle(file, at, vocabulary)
    end = _place_all(file, at, keys, vocabulary)
    tree, cuts = settle(built, file.budget)
    return Checkpoint(
        path=file.path,
        container=NAME,
        bytes=file.size,
        tree=tree,
        tensors=flatten(tree),
        harmless=vocabulary.harmless,
        dangerous=vocabulary.dangerous,
        notes=(*cuts, *(f"{note}: {count}" for note, count in vocabulary.notes.items())),
        history=read_history(_footer(file, end)),
        file=file,
        directory=file.pread(0, at),
        skipped=left_out(tree) if vocabulary.notes else {},
    )


def write_torch_legacy(
    checkpoint: Checkpoint, out: BinaryIO, changes: Mapping[str, AnyArray], note: Note
) -> None:
    """Write the file again; the note follows the last storage, where torch does not look.

    Raises:
        Damaged: if a value does not fit into a tensor's type.
    """
    file = checkpoint.file
    text = write_history(checkpoint.history, note).encode()
    old = len(_footer(file, 0))
    copy(file, out, 0, file.size - (old + _COUNT + len(_FOOTER) if old else 0))
    for key, values in changes.items():
        patch(out, checkpoint.tensors[key], values)
    out.seek(0, 2)
    out.write(text + len(text).to_bytes(_COUNT, "little") + _FOOTER)


def _unpickle(file: OpenFile, at: int, vocabulary: TorchVocabulary) -> tuple[Any, int]:
    """Return the value of the pickle at that position, and the position behind it.

    The window over the file grows as long as the pickle goes on: its length is not known before.
    """
    window, noted = _FIRST_WINDOW, dict(vocabulary.notes)
    while True:
        size = min(window, MAX_PICKLE, file.size - at)
        try:
            value, length = unpickle_first(file.pread(at, size), vocabulary, file.budget)
        except EndsEarly:
            if size < window:
                raise
            window *= _WINDOWS_GROW
            vocabulary.notes = dict(noted)
        else:
            return value, at + length


def _place_all(file: OpenFile, at: int, keys: object, vocabulary: _Vocabulary) -> int:
    """Say where each storage lies, and return the position behind the last."""
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Damaged("corrupt: the list of its storages is garbled", TRUNCATED)
    sizes, placed = vocabulary.sizes, set[str]()
    for key in keys:
        if key not in sizes or key in placed:
            raise Damaged(f"corrupt: it lists the storage {printable(key)}, which it does not use", TRUNCATED)
        itemsize, numel = sizes[key]
        if int.from_bytes(file.pread(at, _COUNT), "little") != numel:
            raise Damaged(f"corrupt: the storage {printable(key)} contradicts its own size", TRUNCATED)
        at += _COUNT
        placed.add(key)
        if key in vocabulary.records:
            _place(vocabulary.records[key], itemsize * numel, at)
        at += itemsize * numel
        if at > file.size:
            raise Damaged("truncated: its storages run past the end of the file", TRUNCATED)
    if lost := next((key for key in sizes if key not in placed), None):
        raise Damaged(f"corrupt: the storage {printable(lost)} is missing", TRUNCATED)
    return at


def _footer(file: OpenFile, end: int) -> bytes:
    """Return the notes of earlier fixes, behind the last storage; empty where there are none."""
    tail = _COUNT + len(_FOOTER)
    if file.size - end < tail:
        return b""
    length, mark = file.pread(file.size - tail, _COUNT), file.pread(file.size - len(_FOOTER), len(_FOOTER))
    start = file.size - tail - int.from_bytes(length, "little")
    if mark != _FOOTER or start < end or file.size - start > MAX_BYTES + tail:
        return b""
    return file.pread(start, file.size - tail - start)


CONTAINER = Container(name=NAME, suffixes=(), sniff=sniff, open=open_torch_legacy, write=write_torch_legacy)
