"""The index of a checkpoint in several files: JSON that says in which file each tensor lies.

References:
    huggingface_hub, serialization/_base.py (`StateDictSplit`); transformers, `*.index.json`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from vqdoctor.checkpoint.budget import Budget
from vqdoctor.checkpoint.dtypes import AnyArray
from vqdoctor.checkpoint.files import TRUNCATED, Damaged, OpenFile, guarded, printable
from vqdoctor.checkpoint.history import Note
from vqdoctor.checkpoint.model import Checkpoint, Container
from vqdoctor.checkpoint.opening import container_of
from vqdoctor.checkpoint.tensor import LazyTensor
from vqdoctor.checkpoint.tree import refuse_long_names
from vqdoctor.core.json_text import parse

NAME = "sharded"
MAX_INDEX = 32 << 20
MAX_PARTS = 1000
"""Files that are opened at a time: the system allows 1024 as a rule."""
_SHOWN = 3


def sniff(head: bytes) -> bool:
    """Return whether this is the start of JSON with a map of weights."""
    return head.lstrip().startswith(b"{") and b'"weight_map"' in head


def open_sharded(file: OpenFile) -> Checkpoint:
    """Open every file that the index names and that is there; the tensors stay where they are.

    Raises:
        Damaged: if the index is malformed or names a file outside its folder, or all files are missing.
        CheckpointError: if one of the files is damaged.
    """
    raw = file.pread(0, min(file.size, MAX_INDEX))
    places = _places(raw)
    names = list(dict.fromkeys(places.values()))
    there = [name for name in names if (file.path.parent / name).exists()]
    missing = Counter(name for name in places.values() if name not in set(there))
    if not there:
        shown = ", ".join(map(printable, names[:_SHOWN])) or "none"
        raise Damaged(f"a sharded checkpoint, of which no shard is here ({shown})", "fetch the shards too")
    parts = [_part(file.path.parent / name, file.budget) for name in there]
    tree: dict[str, Any] = {}
    tensors: dict[str, LazyTensor] = {}
    for part in parts:
        clash = next((key for key in part.tensors if key in tensors), None)
        if clash is not None:
            raise Damaged(f"corrupt: the tensor {printable(clash)[:80]} is in two of its shards")
        # Each file numbers its storages from 0 on.
        own = part.path.name
        tensors |= {key: replace(t, storage_id=(own, t.storage_id)) for key, t in part.tensors.items()}
        tree |= part.tree if isinstance(part.tree, dict) else {}
    refuse_long_names(tensors, sum(part.bytes for part in parts))
    skipped = {key: f"its shard {place} is not here" for key, place in places.items() if place in missing}
    lacking = [f"{printable(name)} ({n} tensors)" for name, n in missing.items()]
    notes = [f"{len(missing)} of {len(names)} shards are missing: {', '.join(lacking)}"] if missing else []
    return Checkpoint(
        path=file.path,
        container=NAME,
        bytes=file.size + sum(part.bytes for part in parts),
        tree=tree,
        tensors=tensors,
        harmless=tuple(dict.fromkeys(name for part in parts for name in part.harmless)),
        dangerous=tuple(dict.fromkeys(name for part in parts for name in part.dangerous)),
        notes=tuple(dict.fromkeys((*notes, *(note for part in parts for note in part.notes)))),
        file=file,
        directory=raw,
        parts=tuple(parts),
        skipped=skipped | {key: why for part in parts for key, why in part.skipped.items()},
    )


def write_sharded(checkpoint: Checkpoint, out: BinaryIO, changes: Mapping[str, AnyArray], note: Note) -> None:
    """Refuse: several files are not written as one.

    Raises:
        Damaged: with the way to one file.
    """
    raise Damaged(
        "a checkpoint in several files, which is not written as one",
        "give the shard with the VQ layer, and put the new file in its place",
    )


def _places(raw: bytes) -> dict[str, str]:
    """Return the name of the file that each tensor lies in."""
    try:
        index = parse(raw)
    except ValueError as error:
        raise Damaged("corrupt: the index is not valid JSON", TRUNCATED) from error
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise Damaged("corrupt: the index of its shards has no map from tensors to files", TRUNCATED)
    names = set(places.values())
    if len(names) > MAX_PARTS:
        raise Damaged(f"its index names {len(names):,} files, of which at most {MAX_PARTS} are opened")
    for name in names:
        if name in ("", ".", "..") or "/" in name or "\\" in name or "\x00" in name:
            raise Damaged(f"forged: its index names {printable(name)[:80]}, which is not a file beside it")
    return places


def _part(path: Path, budget: Budget) -> Checkpoint:
    with guarded(path):
        file = OpenFile(path, budget)
        budget.earn(file.size)
        container = container_of(file)
        if container.name == NAME:
            raise Damaged("an index, named by another index as one of its files")
        return container.open(file)


CONTAINER = Container(name=NAME, suffixes=(), sniff=sniff, open=open_sharded, write=write_sharded)
