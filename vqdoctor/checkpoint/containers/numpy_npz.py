"""numpy arrays by name, `.npz`: a zip file of `.npy` files, stored or deflated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, BinaryIO

from vqdoctor.checkpoint.containers._numpy import array_in
from vqdoctor.checkpoint.dtypes import AnyArray
from vqdoctor.checkpoint.files import Damaged, OpenFile, printable
from vqdoctor.checkpoint.history import Note
from vqdoctor.checkpoint.model import Checkpoint, Container
from vqdoctor.checkpoint.tree import flatten
from vqdoctor.checkpoint.zip_directory import first_name, locate, read_directory

NAME = "numpy-npz"
_BATCH = frozenset({"x", "y", "z_e", "indices"})


def sniff(head: bytes) -> bool:
    """Return whether this is a zip file whose first entry is a numpy array."""
    return first_name(head).endswith(".npy")


def open_npz(file: OpenFile) -> Checkpoint:
    """Read the directory and the header of each array; stored arrays stay where they are.

    Raises:
        Damaged: if an entry is malformed, or this is a batch of data.
    """
    entries = read_directory(file)
    foreign = next((name for name in entries if not name.endswith(".npy")), None)
    if foreign is not None:
        raise Damaged(f"a zip file of numpy arrays with {printable(foreign)} among them", "leave it out")
    names = {name: name.removesuffix(".npy").replace("/", ".") for name in entries}
    if {name.partition(".")[0] for name in names.values()} <= _BATCH:
        raise Damaged("a batch of data in numpy arrays (.npz), not a checkpoint", "a batch goes to --data")
    tree: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for name, key in names.items():
        array = array_in(locate(file, entries[name]), file.path, name)
        if isinstance(array, str):
            skipped[key] = f"an array of {array}"
        else:
            tree[key] = array
    notes = (f"arrays of {kind} are not read and were left out: {n}" for kind, n in _kinds(skipped).items())
    directory = "\n".join(f"{entry.name} {entry.size} {entry.crc:08x}" for entry in entries.values())
    return Checkpoint(
        path=file.path,
        container=NAME,
        bytes=file.size,
        tree=tree,
        tensors=flatten(tree),
        notes=tuple(notes),
        file=file,
        directory=directory.encode("utf-8", "backslashreplace"),
        list_records=lambda: [locate(file, entry) for entry in entries.values()],
        skipped=skipped,
    )


def _kinds(skipped: Mapping[str, str]) -> Counter[str]:
    return Counter(why.removeprefix("an array of ") for why in skipped.values())


def write_npz(checkpoint: Checkpoint, out: BinaryIO, changes: Mapping[str, AnyArray], note: Note) -> None:
    """Refuse: every entry of such a file is an array to those who load it, the note too.

    Raises:
        Damaged: with the way to a file that is written.
    """
    raise Damaged(
        "numpy arrays, which are only read",
        "torch.save({k: torch.from_numpy(v) for k, v in np.load(PATH).items()}, NEW)",
    )


CONTAINER = Container(name=NAME, suffixes=(), sniff=sniff, open=open_npz, write=write_npz)
