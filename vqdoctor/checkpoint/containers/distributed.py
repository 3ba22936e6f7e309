"""The folder of torch.distributed.checkpoint: `.metadata` says where each piece of each tensor lies.

The metadata is a pickle, followed as inertly as any other. Each piece is a file of `torch.save` inside a
`.distcp` file. So FSDP, DeepSpeed's universal layout and accelerate save sharded models.

References:
    torch/distributed/checkpoint/metadata.py, filesystem.py (`_StorageInfo`), _nested_dict.py in
    pytorch/pytorch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from vqdoctor.checkpoint.containers.torch_zip import open_torch_zip
from vqdoctor.checkpoint.dtypes import AnyArray
from vqdoctor.checkpoint.files import TRUNCATED, Damaged, OpenFile, Piece, printable
from vqdoctor.checkpoint.history import Note
from vqdoctor.checkpoint.model import Checkpoint, Container
from vqdoctor.checkpoint.pickles.machine import unpickle
from vqdoctor.checkpoint.pickles.vocabulary import TorchVocabulary
from vqdoctor.checkpoint.records import JoinedRecord, Record
from vqdoctor.checkpoint.settling import settle
from vqdoctor.checkpoint.tensor import LazyTensor
from vqdoctor.checkpoint.tree import Global, Inert, flatten

NAME = "torch-distributed"
MAX_METADATA = 64 << 20
MAX_FILES = 900
"""Files that are opened at a time: the system allows 1024 as a rule."""
PIECE_STEPS = 150
"""The price of opening a piece, besides its pickle."""
MAX_STEPS = 32
_OWN = frozenset(
    f"torch.distributed.checkpoint.{name}"
    for name in (
        "metadata.Metadata", "metadata.TensorStorageMetadata", "metadata.TensorProperties",
        "metadata._MEM_FORMAT_ENCODING", "metadata.ChunkStorageMetadata", "metadata.BytesStorageMetadata",
        "metadata.MetadataIndex", "metadata.StorageMeta", "filesystem._StorageInfo",
        "filesystem._StoragePrefix",
    )
) | {"pathlib.PosixPath"}  # fmt: skip
"""The classes that every such file names."""
_SEPARATOR = "\x00"

Ints = tuple[int, ...]


class _Vocabulary(TorchVocabulary):
    """The names of a metadata file, whose places are keyed by objects."""

    def named(self, module: str, name: str) -> Global:
        own = f"{module}.{name}" in _OWN
        return Global(module, name) if own else super().named(module, name)

    def key(self, key: object) -> str | None:
        name = _state(key, "fqn")
        return None if name is None else _key(name, _ints(_state(key, "offset") or ()))


@dataclass(frozen=True)
class _Place:
    """Where a piece lies."""

    file: str
    offset: int
    length: int
    encoded: bool


@dataclass
class _Folder:
    """The opened pieces of a folder.

    Attributes:
        metadata: the file of the directory.
        files: the data files by name.
        found: the values and tensors, by name.
        skipped: name to why it was left out.
        foreign: what the pieces' pickles name.
    """

    metadata: OpenFile
    files: dict[str, OpenFile] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    foreign: list[Checkpoint] = field(default_factory=list)

    def value(self, place: _Place) -> Any:
        """Return the value of a piece: a tensor, or whatever else was saved."""
        if place.file not in self.files:
            if place.file in ("", ".", "..") or "/" in place.file or "\\" in place.file:
                raise Damaged(f"forged: it names {printable(place.file)[:80]}, which is not a file beside it")
            if len(self.files) >= MAX_FILES:
                raise Damaged(f"its pieces are in more than {MAX_FILES} files")
            self.files[place.file] = OpenFile(self.metadata.path.parent / place.file, self.metadata.budget)
        self.metadata.budget.steps -= PIECE_STEPS
        piece = open_torch_zip(Piece(self.files[place.file], place.offset, place.length))
        self.foreign.append(piece)
        return piece.tree


def sniff(head: bytes) -> bool:
    """Return whether this is the start of a pickle of DCP's metadata."""
    return head.startswith(b"\x80") and b"torch.distributed.checkpoint.metadata" in head[:256]


def open_distributed(file: OpenFile) -> Checkpoint:
    """Read the metadata and the directory of each piece; the tensors stay where they are.

    Raises:
        Damaged: if the metadata or a piece is malformed, or names a file outside the folder.
        OSError: if a data file is missing.
    """
    if file.size > MAX_METADATA:
        raise Damaged(f"its metadata takes {file.size >> 20} MiB")
    raw = file.pread(0, file.size)
    file.budget.earn(sum(part.stat().st_size for part in file.path.parent.glob("*.distcp")))
    vocabulary = _Vocabulary(path=file.path, find_record=_no_record)
    tree, cuts = settle(unpickle(raw, vocabulary, file.budget), file.budget)
    listed, places = _state(tree, "state_dict_metadata"), _state(tree, "storage_data")
    if not isinstance(listed, dict) or not isinstance(places, dict):
        raise Damaged("corrupt: its metadata lists no tensors", TRUNCATED)
    where = {key: _place(info) for key, info in places.items()}
    folder = _Folder(file)
    for name, about in listed.items():
        pieces = [(offsets, sizes, where.get(_key(name, offsets))) for offsets, sizes in _chunks(about)]
        if any(place is None for _, _, place in pieces):
            folder.skipped[name] = "a piece of it is not in the folder"
        elif any(place is not None and place.encoded for _, _, place in pieces):
            folder.skipped[name] = "its pieces are encoded"
        elif not pieces:
            place = where.get(_key(name, ()))
            folder.found[name] = folder.value(place) if place else None
        else:
            values = [(offsets, sizes, folder.value(place)) for offsets, sizes, place in pieces if place]
            _add(folder, name, _ints(_state(about, "size")), values)
    tree = _nested(folder.found, _state(tree, "planner_data"))
    of_names: list[_Vocabulary | Checkpoint] = [vocabulary, *folder.foreign]
    notes = [f"{name} was left out: {why}" for name, why in folder.skipped.items()]
    return Checkpoint(
        path=file.path,
        container=NAME,
        bytes=file.size + sum(part.size for part in folder.files.values()),
        tree=tree,
        tensors=flatten(tree),
        harmless=tuple(dict.fromkeys(name for item in of_names for name in item.harmless)),
        dangerous=tuple(dict.fromkeys(name for item in of_names for name in item.dangerous)),
        notes=(*cuts, *notes[:8]),
        file=file,
        directory=raw,
        parts=tuple(_data_file(part) for part in folder.files.values()),
        skipped=folder.skipped,
    )


def _data_file(file: OpenFile) -> Checkpoint:
    return Checkpoint(
        path=file.path, container="distcp", bytes=file.size, tree=None, tensors={}, file=file, directory=b""
    )


def _add(folder: _Folder, name: str, shape: Ints, pieces: list[tuple[Ints, Ints, Any]]) -> None:
    """Put a tensor's pieces together: whole, or one below the other."""
    pieces = sorted(pieces, key=lambda piece: piece[0])
    tensors = [value for _, _, value in pieces if isinstance(value, LazyTensor)]
    if [t.shape for t in tensors] != [sizes for _, sizes, _ in pieces]:
        folder.skipped[name] = "a piece of it has another size"
        return
    first = tensors[0]
    if len(tensors) == 1 and first.shape == shape:
        folder.found[name] = replace(first, key="", storage_id=(NAME, name))
        return
    at = 0
    for (offsets, sizes, _), tensor in zip(pieces, tensors, strict=True):
        whole_rows = len(sizes) == len(shape) > 0 and sizes[1:] == shape[1:] and not any(offsets[1:])
        plain = tensor.strides == _steps(sizes) and tensor.element is first.element
        if not (whole_rows and plain and offsets[0] == at and tensor.big_endian == first.big_endian):
            folder.skipped[name] = "it is not split by rows"
            return
        at += sizes[0]
    if at != shape[0]:
        folder.skipped[name] = "some of its rows are in no piece"
        return
    size = first.element.itemsize
    record = JoinedRecord(name, [(t.record, t.offset * size, t.nbytes) for t in tensors])
    folder.found[name] = replace(
        first,
        key="",
        shape=shape,
        strides=_steps(shape),
        offset=0,
        record=record,
        storage_id=(NAME, name),
    )


def _steps(shape: Ints) -> Ints:
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def _chunks(about: Any) -> Iterator[tuple[Ints, Ints]]:
    """Yield offsets and sizes of the pieces of a tensor; nothing for another value."""
    chunks = _state(about, "chunks")
    for chunk in chunks if isinstance(chunks, list) else ():
        yield _ints(_state(chunk, "offsets")), _ints(_state(chunk, "sizes"))


def _place(info: Any) -> _Place:
    file, offset, length = (_state(info, name) for name in ("relative_path", "offset", "length"))
    if isinstance(file, str) and isinstance(offset, int) and isinstance(length, int):
        return _Place(file, offset, length, bool(_state(info, "transform_descriptors")))
    raise Damaged("corrupt: its metadata does not say where a piece lies", TRUNCATED)


def _nested(found: Mapping[str, Any], paths: Any) -> Any:
    """Return the tree as it was before it was saved by flat names; the flat one where no paths are known."""
    if not isinstance(paths, dict) or not all(_is_path(paths.get(name)) for name in found):
        return dict(found)
    root: dict[Any, Any] = {}
    for name, value in found.items():
        node = root
        *steps, last = paths[name]
        for step in steps:
            below = node.setdefault(step, {})
            if not isinstance(below, dict):
                return dict(found)
            node = below
        node[last] = value
    return _listed(root)


def _is_path(steps: Any) -> bool:
    listed = isinstance(steps, tuple | list) and 0 < len(steps) <= MAX_STEPS
    return listed and all(isinstance(step, str | int) for step in steps)


def _listed(node: Any) -> Any:
    """Turn the dicts whose keys are the numbers from 0 on into lists; at most `MAX_STEPS` deep."""
    if not isinstance(node, dict):
        return node
    below = {key: _listed(value) for key, value in node.items()}
    return list(below.values()) if below and list(below) == list(range(len(below))) else below


def _state(node: Any, name: str) -> Any:
    return node.state.get(name) if isinstance(node, Inert) and isinstance(node.state, dict) else None


def _ints(values: Any) -> Ints:
    values = values.args[0] if isinstance(values, Inert) and values.args else values
    if not isinstance(values, tuple | list) or any(type(n) is not int or n < 0 for n in values):
        raise Damaged("corrupt: its metadata states a size that is not a tuple of integers", TRUNCATED)
    return tuple(values)


def _key(name: object, offsets: Ints) -> str:
    return f"{name}{_SEPARATOR}{','.join(map(str, offsets)) if any(offsets) else ''}"


def _no_record(key: str) -> Record:
    raise Damaged(f"corrupt: the storage {printable(key)} is out of place", TRUNCATED)


def write_distributed(
    checkpoint: Checkpoint, out: BinaryIO, changes: Mapping[str, AnyArray], note: Note
) -> None:
    """Refuse: pieces are not written.

    Raises:
        Damaged: with the way to one file.
    """
    raise Damaged(
        "a distributed checkpoint, in pieces that are not written again",
        "join them: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER NEW.pt",
    )


CONTAINER = Container(name=NAME, suffixes=(), sniff=sniff, open=open_distributed, write=write_distributed)
