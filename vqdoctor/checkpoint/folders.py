"""Paths that do not lead to a file: a folder that holds one, and a name with a slip in it."""

from __future__ import annotations

import errno
from pathlib import Path

from vqdoctor.checkpoint.files import Damaged, printable
from vqdoctor.core.files import ALL_SUFFIXES

_USUAL = (
    "model.safetensors", "diffusion_pytorch_model.safetensors", "pytorch_model.bin",
    "diffusion_pytorch_model.bin", "model.pt", "checkpoint.pt", "weights.pth",
)  # fmt: skip
_SHOWN = 5


def find_in_folder(folder: Path) -> Path:
    """Return the one checkpoint in a folder.

    Raises:
        Damaged: if there is none, or several; the candidates are listed.
        OSError: if the folder cannot be read.
    """
    files = sorted(entry for entry in folder.iterdir() if entry.is_file())
    names = {file.name for file in files}
    if ".metadata" in names and any(name.endswith(".distcp") for name in names):
        raise Damaged(
            "a distributed checkpoint (torch.distributed.checkpoint), in many pieces",
            "join them: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER NEW.pt",
        )
    usual = [file for file in files if file.name in _USUAL]
    candidates = [file for file in files if file.name.lower().endswith(ALL_SUFFIXES) or file in usual]
    if len(usual) == 1:
        return usual[0]
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise Damaged("a folder without a checkpoint", "give the checkpoint file")
    shown = ", ".join(printable(file.name) for file in candidates[:_SHOWN])
    if len(candidates) > _SHOWN:
        shown += f" and {len(candidates) - _SHOWN} more"
    if any(name.endswith(".index.json") for name in names):
        raise Damaged("a folder with a sharded checkpoint", f"give the shard with the VQ layer: {shown}")
    raise Damaged("a folder with several checkpoints", f"give one of them: {shown}")


def explain(error: OSError, path: Path) -> Damaged:
    """Return why a path leads nowhere, and what may have been meant."""
    if error.errno == errno.ELOOP:
        return Damaged("a loop of symbolic links", "give the file itself")
    if isinstance(error, PermissionError):
        return Damaged("no permission to read it", f"ls -l {printable(path.name)} shows who may")
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
