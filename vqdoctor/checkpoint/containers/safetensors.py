"""safetensors: a length, a JSON header, and the tensors one after the other.

References:
    https://github.com/huggingface/safetensors, README "Format" and safetensors/src/tensor.rs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, BinaryIO

from vqdoctor.checkpoint.dtypes import DTYPES, AnyArray
from vqdoctor.checkpoint.files import TRUNCATED, Damaged, OpenFile, printable
from vqdoctor.checkpoint.history import METADATA, Note, read_history, write_history
from vqdoctor.checkpoint.model import Checkpoint, Container
from vqdoctor.checkpoint.patching import copy, patch
from vqdoctor.checkpoint.records import StoredRecord
from vqdoctor.checkpoint.tensor import MAX_DIMENSIONS, MAX_ELEMENTS, LazyTensor
from vqdoctor.checkpoint.tree import refuse_long_names
from vqdoctor.core.json_text import TooMuch, parse

NAME = "safetensors"
MAX_HEADER = 8_000_000
"""Bytes of a header, or a tenth of the file where that is more: 20,000 tensors take 2 MB."""
MAX_TENSORS = 10_000
"""Tensors in a header, or one for each 10,000 bytes of the file where that is more."""
_LENGTH = 8
_ALIGNMENT = 8
_METADATA = "__metadata__"

_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
    "BOOL": "bool", "C64": "complex64",
}  # fmt: skip

_CROWDED = "its header names more tensors than a file of this size can hold"


def sniff(head: bytes) -> bool:
    """Return whether this starts with a length under 2^56 and a JSON object."""
    return len(head) > _LENGTH and head[_LENGTH : _LENGTH + 1] == b"{" and head[_LENGTH - 1] == 0


def open_safetensors(file: OpenFile) -> Checkpoint:
    """Read and check the header; the tensors stay where they are.

    Raises:
        Damaged: if the header is malformed, or does not describe exactly the bytes that follow.
    """
    raw, header = _header(file)
    metadata = header.pop(_METADATA, None)
    data = _LENGTH + len(raw)
    if len(header) > _most(file):
        raise Damaged(_CROWDED)
    refuse_long_names(header, file.size)
    spans = {name: _span(name, entry) for name, entry in header.items()}
    _check_spans(spans, file.size - data)
    tensors: dict[str, LazyTensor] = {}
    unread: dict[str, int] = {}
    skipped: dict[str, str] = {}
    for name, (start, end) in spans.items():
        shape, stated = tuple(header[name]["shape"]), header[name]["dtype"]
        dtype = DTYPES.get(_TYPES.get(stated, ""))
        if dtype is None:
            kind = printable(stated)
            unread[kind] = unread.get(kind, 0) + 1
            skipped[name] = "its type is not read"
            continue
        if math.prod(shape) > MAX_ELEMENTS or math.prod(shape) * dtype.itemsize != end - start:
            raise Damaged(f"forged: the shape of {_shown(name)} does not fit its bytes")
        tensors[name] = LazyTensor(
            path=file.path,
            key=name,
            shape=shape,
            strides=tuple(math.prod(shape[i + 1 :]) for i in range(len(shape))),
            element=dtype,
            record=StoredRecord(file, name, data + start, end - start),
            storage_id=name,
        )
    tree: dict[str, Any] = dict(tensors)
    if metadata is not None:
        if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
            raise Damaged("corrupt: its __metadata__ is not a map from text to text")
        tree[_METADATA] = metadata
    return Checkpoint(
        path=file.path,
        container=NAME,
        bytes=file.size,
        tree=tree,
        tensors=tensors,
        notes=tuple(f"{kind} tensors are not read and were left out: {n}" for kind, n in unread.items()),
        history=read_history((metadata or {}).get(METADATA, "")),
        file=file,
        directory=raw,
        skipped=skipped,
    )


def write_safetensors(
    checkpoint: Checkpoint, out: BinaryIO, changes: Mapping[str, AnyArray], note: Note
) -> None:
    """Write the file again; the note goes into its `__metadata__`, so its header grows.

    Raises:
        Damaged: if a value does not fit into a tensor's type.
    """
    raw, header = _header(checkpoint.file)
    # transformers refuses metadata that does not name the format, and takes none at all for torch's.
    metadata = header.pop(_METADATA, {"format": "pt"})
    metadata[METADATA] = write_history(checkpoint.history, note)
    text = json.dumps({_METADATA: metadata, **header}, separators=(",", ":"), ensure_ascii=False)
    new = text.encode("utf-8", "surrogatepass")
    new += b" " * (-len(new) % _ALIGNMENT)
    out.write(len(new).to_bytes(_LENGTH, "little") + new)
    copy(checkpoint.file, out, _LENGTH + len(raw), checkpoint.file.size)
    for key, values in changes.items():
        patch(out, checkpoint.tensors[key], values, shift=len(new) - len(raw))


def _header(file: OpenFile) -> tuple[bytes, dict[str, Any]]:
    """Return the header's bytes, and the object that they spell."""
    if file.size < _LENGTH + 2:
        raise Damaged("truncated: shorter than the smallest safetensors header", TRUNCATED)
    length = int.from_bytes(file.pread(0, _LENGTH), "little")
    if length > max(MAX_HEADER, file.size // 10):
        raise Damaged("its safetensors header is absurdly long, or this is not a safetensors file", TRUNCATED)
    if _LENGTH + length > file.size:
        raise Damaged("truncated: its safetensors header runs past the end of the file", TRUNCATED)
    raw = file.pread(_LENGTH, length)
    if not raw.startswith(b"{"):
        raise Damaged("corrupt: its safetensors header is not a JSON object", TRUNCATED)
    try:
        header: dict[str, Any] = parse(raw, _unique, 16 * _most(file))
    except TooMuch as error:
        raise Damaged(_CROWDED) from error
    except ValueError as error:
        raise Damaged("corrupt: its safetensors header is not valid JSON", TRUNCATED) from error
    return raw, header


def _most(file: OpenFile) -> int:
    """Return how many tensors a file of that size may have."""
    return max(MAX_TENSORS, file.size // 10_000)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise Damaged("corrupt: its safetensors header names a tensor twice")
    return unique


def _span(name: str, entry: object) -> tuple[int, int]:
    """Return the (start, end) that an entry states, after checking the entry's form."""
    match entry:
        case {"dtype": str(), "shape": [*shape], "data_offsets": [start, end], **rest}:
            sizes = (*shape, start, end)
            if len(shape) > MAX_DIMENSIONS:
                raise Damaged(f"forged: {_shown(name)} has {len(shape):,} dimensions")
            if not rest and start <= end and all(type(n) is int and 0 <= n < 1 << 63 for n in sizes):
                return start, end
    raise Damaged(f"corrupt: its header describes {_shown(name)} in no valid way")


def _check_spans(spans: Mapping[str, tuple[int, int]], size: int) -> None:
    """Refuse tensors that overlap, leave gaps, or do not end where the file ends."""
    at = 0
    for name, (start, end) in sorted(spans.items(), key=lambda item: item[1]):
        if start != at:
            what = "overlaps another tensor" if start < at else "leaves a gap before it"
            raise Damaged(f"corrupt: {_shown(name)} {what}")
        at = end
    if at > size:
        raise Damaged("truncated: its tensors run past the end of the file", TRUNCATED)
    if at < size:
        raise Damaged("corrupt: bytes follow the last tensor")


def _shown(name: str) -> str:
    return printable(name)[:80]


CONTAINER = Container(
    name=NAME, suffixes=(".safetensors",), sniff=sniff, open=open_safetensors, write=write_safetensors
)
