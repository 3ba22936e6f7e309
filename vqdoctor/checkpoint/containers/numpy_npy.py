"""One numpy array, `.npy`; its name is that of the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO

from vqdoctor.checkpoint.containers._numpy import array_in
from vqdoctor.checkpoint.dtypes import AnyArray
from vqdoctor.checkpoint.files import Damaged, OpenFile
from vqdoctor.checkpoint.history import Note
from vqdoctor.checkpoint.model import Checkpoint, Container
from vqdoctor.checkpoint.npy import MAGIC
from vqdoctor.checkpoint.records import StoredRecord
from vqdoctor.checkpoint.tree import flatten

NAME = "numpy-npy"
MAX_HEAD = 1 << 12


def sniff(head: bytes) -> bool:
    """Return whether this starts with numpy's magic bytes."""
    return head.startswith(MAGIC)


def open_npy(file: OpenFile) -> Checkpoint:
    """Read the header; the elements stay where they are.

    Raises:
        Damaged: if the header is malformed, or the array holds objects.
    """
    name = file.path.name.removesuffix(".npy")
    array = array_in(StoredRecord(file, name, 0, file.size), file.path, name)
    if isinstance(array, str):
        raise Damaged(f"a numpy array of {array}, which is not read", "save the weights as floats")
    tree = {name: array}
    return Checkpoint(
        path=file.path,
        container=NAME,
        bytes=file.size,
        tree=tree,
        tensors=flatten(tree),
        file=file,
        directory=file.pread(0, min(file.size, MAX_HEAD)),
    )


def write_npy(checkpoint: Checkpoint, out: BinaryIO, changes: Mapping[str, AnyArray], note: Note) -> None:
    """Refuse: a lone array has no place for a note.

    Raises:
        Damaged: with the way to a file that is written.
    """
    raise Damaged("a numpy array, which is only read", "torch.save the array as a tensor")


CONTAINER = Container(name=NAME, suffixes=(), sniff=sniff, open=open_npy, write=write_npy)
