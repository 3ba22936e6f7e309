"""Paths that do not lead to a file: a folder with checkpoints in it, and a name with a slip in it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Collection
from pathlib import Path

from vqdoctor.checkpoint.files import Damaged, printable
from vqdoctor.checkpoint.strangers import AS_ARRAYS, JAX_FOLDER
from vqdoctor.core.files import ALL_SUFFIXES

_HUB = tuple(
    f"{stem}.{kind}{index}"
    for stem in ("model", "diffusion_pytorch_model", "pytorch_model")
    for kind in ("safetensors", "bin")
    for index in ("", ".index.json")
)
"""Names of the weights in a folder of `save_pretrained`, in the order in which `from_pretrained` looks."""
_BESIDE = re.compile(
    r"^(?:optimizer|scheduler|rng_state|random_states|scaler|training_args|\.)|optim_states\.pt$",
    re.IGNORECASE,
)
"""Names of what a training saves beside the weights."""
DISTRIBUTED = ".metadata"
"""The name of the directory of the pieces of torch.distributed.checkpoint."""
_NUMBERS = re.compile(r"\d+")


def find_in_folder(folder: Path) -> tuple[Path, str]:
    """Return the newest checkpoint in a folder, and which one it is, in words.

    Raises:
        Damaged: if there is none.
        OSError: if the folder cannot be read.
    """
    found = newest(folder)
    if found == folder:
        if JAX_FOLDER.intersection(file.name for file in folder.iterdir()):
            raise Damaged("a folder of Orbax (JAX) or TensorFlow", AS_ARRAYS)
        raise Damaged("a folder without a checkpoint", "give the checkpoint file")
    others = _weights([file.name for file in found.parent.iterdir() if file.name != found.name])
    shown = printable(os.fspath(found.relative_to(folder)))
    passed = (
        f"; {', '.join(map(printable, others))} beside it: passed over"
        if found.name in _HUB and others
        else ""
    )
    return found, f"a folder was given; {shown} in it was opened{passed}"


def companions(folder: Path) -> list[str]:
    """Return the names of the files that belong to a folder's weights, and are none: configs, vocabularies.

    The index of a sharded checkpoint is one of them where it has no other weights beside it.
    """
    names = [file.name for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")]
    weights = next((name for name in _HUB if name in names), None)
    return [
        name
        for name in names
        if name == weights
        or not (name in _HUB or name.lower().endswith((*ALL_SUFFIXES, ".bin")) or _BESIDE.search(name))
    ]


def newest(folder: Path) -> Path:
    """Return the newest checkpoint in a run's folder and those below it; the folder where it has none."""
    return next(reversed(all_in(folder)), folder)


def all_in(folder: Path) -> list[Path]:
    """Return the checkpoints in a run's folder and those below it, the newest last.

    Where the paths differ in their numbers alone (epochs, steps) the highest is the newest: a copied or
    downloaded folder has lost its times. Else the latest time decides.

    Raises:
        OSError: if the folder may not be read; one below it is passed over.
    """
    os.scandir(folder).close()  # os.walk would find nothing in it
    candidates: list[Path] = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names = _weights(files)
        if DISTRIBUTED in files and any(name.endswith(".distcp") for name in files):
            names = [DISTRIBUTED]
        weights = (Path(place, file) for file in (names[:1] if names and names[0] in _HUB else names))
        candidates += [path for path in weights if path.exists()]  # a link "last.ckpt" may outlive its file
    if len({_NUMBERS.sub("#", os.fspath(path)) for path in candidates}) == 1:
        return sorted(candidates, key=lambda path: natural(os.fspath(path)))
    return sorted(candidates, key=lambda path: (path.stat().st_mtime_ns, natural(os.fspath(path))))


def _weights(files: Collection[str]) -> list[str]:
    """Return the names of a folder's checkpoints: those that the hub uses, or else all."""
    usual = [name for name in _HUB if name in files]
    return usual or [
        name for name in files if name.lower().endswith(ALL_SUFFIXES) and not _BESIDE.search(name)
    ]


def natural(text: str) -> tuple[tuple[int, str], ...]:
    """Return the key of a sorting in which 10 comes after 9."""
    pieces = re.split(r"(\d+)", text)
    return tuple((int(piece), "") if piece.isdigit() else (-1, piece) for piece in pieces)


def explain(error: OSError, path: Path) -> Damaged:
    """Return why a path leads nowhere, and what may have been meant."""
    if error.errno == errno.ELOOP:
        return Damaged("a loop of symbolic links", "give the file itself")
    if isinstance(error, PermissionError):
        places = " ".join(map(printable, (path.parent, path)))
        return Damaged("no permission to read it", f"ls -ld {places} shows who may")
    if isinstance(error, NotADirectoryError):
        return Damaged("no such file: a part of the path is a file, not a folder")
    if not isinstance(error, FileNotFoundError):
        return Damaged(f"cannot be opened ({error.strerror or error})")
    if path.is_symlink():
        return Damaged("a symbolic link to a file that is gone", f"it points to {printable(path.readlink())}")
    return Damaged("no such file", _near_names(path))


def _near_names(path: Path) -> str:
    from difflib import get_close_matches  # 8 ms that only a mistake should cost

    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"there is no folder {printable(path.parent)} either"
    near = get_close_matches(path.name, names, n=3)
    return f"did you mean {' or '.join(map(printable, near))}?" if near else "check the path"
