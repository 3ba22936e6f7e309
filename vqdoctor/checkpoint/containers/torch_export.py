"""A program of `torch.export.save`, `.pt2`: a zip of a graph, and of one raw record for each weight.

The weights alone are read; the program is not.

References:
    torch/export/pt2_archive/_package.py, _package_weights.py; torch/_export/serde/schema.py (`ScalarType`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO

from vqdoctor.checkpoint.dtypes import DTYPES, AnyArray
from vqdoctor.checkpoint.files import TRUNCATED, Damaged, OpenFile, printable
from vqdoctor.checkpoint.history import Note
from vqdoctor.checkpoint.model import Checkpoint, Container
from vqdoctor.checkpoint.tensor import LazyTensor
from vqdoctor.checkpoint.tree import flatten
from vqdoctor.checkpoint.zip_directory import Entry, first_name, locate, read_directory
from vqdoctor.core.json_text import parse

NAME = "torch-export"
MAX_CONFIG = 64 << 20
_WEIGHTS = "data/weights/"
_CONFIG = f"{_WEIGHTS}model_weights_config.json"
_TYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
    10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16", 29: "float8_e4m3fn",
    30: "float8_e5m2", 31: "float8_e4m3fnuz", 32: "float8_e5m2fnuz",
}  # fmt: skip
"""`ScalarType` of the schema."""
_STRIDED = 7


def sniff(head: bytes) -> bool:
    """Return whether this is a zip file whose first entry is a weight of an exported program."""
    return f"/{first_name(head)}".find(f"/{_WEIGHTS}") >= 0


def open_torch_export(file: OpenFile) -> Checkpoint:
    """Read the directory and the list of the weights, which stay where they are.

    Raises:
        Damaged: if the list is malformed or names a record that is not there.
    """
    entries = read_directory(file)
    prefix = next((name.removesuffix(_CONFIG) for name in entries if name.endswith(_CONFIG)), None)
    if prefix is None or f"{prefix}data.pkl" in entries:
        raise Damaged("corrupt: an exported program without the list of its weights", TRUNCATED)
    tree: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for key, about in _listed(file, entries[prefix + _CONFIG]).items():
        found = _weight(file, entries, prefix, about)
        if isinstance(found, LazyTensor):
            tree[key] = found
        else:
            skipped[key] = found
    notes = [f"{printable(key)} was left out: {why}" for key, why in skipped.items()][:8]
    directory = "\n".join(f"{entry.name} {entry.size} {entry.crc:08x}" for entry in entries.values())
    return Checkpoint(
        path=file.path,
        container=NAME,
        bytes=file.size,
        tree=tree,
        tensors=flatten(tree),
        notes=("a program of torch.export: its weights alone are read", *notes),
        file=file,
        directory=directory.encode("utf-8", "backslashreplace"),
        list_records=lambda: [locate(file, entry) for entry in entries.values()],
        skipped=skipped,
    )


def _listed(file: OpenFile, entry: Entry) -> dict[str, Any]:
    record = locate(file, entry)
    if record.size > MAX_CONFIG:
        raise Damaged(f"the list of its weights takes {record.size >> 20} MiB")
    record.check()
    try:
        config = parse(record.pread(0, record.size))["config"]
    except (ValueError, TypeError, KeyError) as error:
        raise Damaged("corrupt: the list of its weights is garbled", TRUNCATED) from error
    if not isinstance(config, dict):
        raise Damaged("corrupt: the list of its weights is garbled", TRUNCATED)
    return config


def _weight(file: OpenFile, entries: Mapping[str, Entry], prefix: str, about: Any) -> LazyTensor | str:
    """Return a weight, or why it is left out."""
    match about:
        case {
            "path_name": str(name),
            "use_pickle": False,
            "tensor_meta": {
                "dtype": int(kind), "sizes": list(sizes), "strides": list(strides),
                "storage_offset": {"as_int": int(offset)}, "layout": int(layout),
            },
        }:  # fmt: skip
            pass
        case _:
            return "it is not a plain tensor"
    element = DTYPES.get(_TYPES.get(kind, ""))
    if element is None or layout != _STRIDED:
        return "its element type or layout is not read"
    entry = entries.get(f"{prefix}{_WEIGHTS}{name}")
    if entry is None:
        raise Damaged(f"corrupt: the record {printable(name)} is missing", TRUNCATED)
    record = locate(file, entry)
    if not record.size:
        return "its record is empty"
    return LazyTensor(
        path=file.path,
        shape=tuple(int(size["as_int"]) for size in sizes),
        strides=tuple(int(step["as_int"]) for step in strides),
        offset=offset,
        element=element,
        record=record,
        storage_id=name,
    )


def write_torch_export(
    checkpoint: Checkpoint, out: BinaryIO, changes: Mapping[str, AnyArray], note: Note
) -> None:
    """Refuse: a program belongs to its weights.

    Raises:
        Damaged: with the way to a file that is written.
    """
    raise Damaged("an exported program, which is only read", "give the checkpoint that it was exported from")


CONTAINER = Container(name=NAME, suffixes=(), sniff=sniff, open=open_torch_export, write=write_torch_export)
