"""The format of `torch.save` since torch 1.6: a zip of a pickle and one raw record for each storage.

References:
    torch/serialization.py (`_save`), caffe2/serialize/inline_container.h in pytorch/pytorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO

from vqdoctor.checkpoint.dtypes import AnyArray
from vqdoctor.checkpoint.files import FEWER, TRUNCATED, Damaged, OpenFile, printable
from vqdoctor.checkpoint.history import MAX_BYTES, RECORD, Note, read_history, write_history
from vqdoctor.checkpoint.model import Checkpoint, Container, FileRecord
from vqdoctor.checkpoint.patching import patch, record_of
from vqdoctor.checkpoint.pickles.machine import unpickle
from vqdoctor.checkpoint.pickles.vocabulary import TorchVocabulary
from vqdoctor.checkpoint.settling import settle
from vqdoctor.checkpoint.strangers import AS_ARRAYS
from vqdoctor.checkpoint.tree import flatten, left_out
from vqdoctor.checkpoint.zip_directory import Entry, locate, read_directory
from vqdoctor.checkpoint.zip_writing import append_record, copy_records, renew_checksum
from vqdoctor.core.files import SUFFIXES

NAME = "torch-zip"
MAX_PICKLE = 64 << 20
_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")


def sniff(head: bytes) -> bool:
    """Return whether this is a zip file, even an empty one."""
    return head.startswith(_MAGIC)


def open_torch_zip(file: OpenFile) -> Checkpoint:
    """Read the directory and the pickle; the tensors stay where they are.

    Raises:
        Damaged: if it is another kind of zip file, or contradicts itself.
    """
    entries = read_directory(file)
    prefix = _prefix(entries)
    records: dict[str, FileRecord] = {}

    def find(name: str) -> FileRecord:
        if name not in records:
            if prefix + name not in entries:
                raise Damaged(f"corrupt: the record {printable(name)} is missing", TRUNCATED)
            records[name] = locate(file, entries[prefix + name])
        return records[name]

    def start_of(name: str, size: int) -> bytes:
        """Return the first bytes of a record; none where there is no such record."""
        return find(name).pread(0, min(find(name).size, size)) if prefix + name in entries else b""

    order = start_of("byteorder", 16) if f"{prefix}byteorder" in entries else b"little"
    if order not in (b"little", b"big"):
        raise Damaged("corrupt: its byte order is neither little nor big", TRUNCATED)
    vocabulary = TorchVocabulary(
        path=file.path, find_record=lambda key: find(f"data/{key}"), big_endian=order == b"big"
    )
    tree, cuts = settle(unpickle(_pickle(find("data.pkl")), vocabulary, file.budget), file.budget)
    is_program = f"{prefix}constants.pkl" in entries
    program = ["a TorchScript program: its tensors alone are read, and its code is not run"] * is_program
    directory = "\n".join(f"{entry.name} {entry.size} {entry.crc:08x}" for entry in entries.values())
    return Checkpoint(
        path=file.path,
        container=NAME,
        bytes=file.size,
        tree=tree,
        tensors=flatten(tree),
        harmless=vocabulary.harmless,
        dangerous=vocabulary.dangerous,
        notes=(*program, *cuts, *(f"{note}: {count}" for note, count in vocabulary.notes.items())),
        history=read_history(start_of(RECORD, MAX_BYTES + 1)),
        file=file,
        directory=directory.encode("utf-8", "backslashreplace"),
        list_records=lambda: [locate(file, entry) for entry in entries.values()],
        skipped=left_out(tree) if vocabulary.notes else {},
    )


def write_torch_zip(
    checkpoint: Checkpoint, out: BinaryIO, changes: Mapping[str, AnyArray], note: Note
) -> None:
    """Write the file again; the note is a record of its own, which `torch.load` passes over.

    Raises:
        Damaged: if a tensor cannot be written in place.
    """
    entries = read_directory(checkpoint.file)
    name = _prefix(entries) + RECORD
    records = {record.name: record for record in (record_of(checkpoint.tensors[key]) for key in changes)}
    copy_records(checkpoint.file, out, without=entries.get(name))
    for key, values in changes.items():
        patch(out, checkpoint.tensors[key], values)
    recorded = {known: record for known, record in records.items() if record.crc}
    crcs = {known: renew_checksum(out, entries[known], record) for known, record in recorded.items()}
    append_record(out, checkpoint.file, entries, name, write_history(checkpoint.history, note).encode(), crcs)


def _prefix(entries: Mapping[str, Entry]) -> str:
    """Return the folder inside the zip ("archive/"), or say what else this zip is."""
    pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    # torch reads the folder of the first record; a pickle elsewhere is not this checkpoint's.
    if not pickles or len(pickles) > 1:
        raise _stranger(entries, len(pickles))
    return pickles[0].removesuffix("data.pkl")


def _stranger(entries: Mapping[str, Entry], pickles: int) -> Damaged:
    names = list(entries)
    checkpoint = "give a file that torch.save or safetensors wrote"
    if pickles:
        return Damaged("corrupt: a zip file with more than one data.pkl", checkpoint)
    if not names:
        return Damaged("an empty zip file", TRUNCATED)
    if any(name.endswith(("archive_format", "models/model.json")) for name in names):
        return Damaged("an exported program of an old torch.export", checkpoint)
    if any(name.endswith(("config.json", "model.weights.h5")) for name in names):
        return Damaged("a Keras model", AS_ARRAYS)
    nested = [name for name in names if name.endswith(SUFFIXES)]
    if nested:
        return Damaged("a zip file with checkpoints in it", f"unzip it; it holds {printable(nested[0])}")
    return Damaged("a zip file without data.pkl, so no checkpoint of torch.save", checkpoint)


def _pickle(record: FileRecord) -> bytes:
    if record.size > MAX_PICKLE:
        raise Damaged(f"its pickle alone takes {record.size >> 20} MiB", FEWER)
    record.check()
    return record.pread(0, record.size)


CONTAINER = Container(name=NAME, suffixes=(), sniff=sniff, open=open_torch_zip, write=write_torch_zip)
