"""Writing a checkpoint again with some tensors changed: whole or not at all, and never over its input."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from vqdoctor.checkpoint.dtypes import AnyArray
from vqdoctor.checkpoint.files import Damaged, OpenFile, guarded, printable
from vqdoctor.checkpoint.folders import companions
from vqdoctor.checkpoint.history import Note
from vqdoctor.checkpoint.model import Checkpoint, Progress
from vqdoctor.checkpoint.opening import container_named
from vqdoctor.core.errors import CheckpointError
from vqdoctor.core.files import beside


def write_checkpoint(
    checkpoint: Checkpoint,
    path: str | os.PathLike[str],
    changes: Mapping[str, AnyArray],
    *,
    note: Note,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> str:
    """Write a checkpoint under another name, with the values of some tensors changed.

    Container, names, shapes, types, strides and foreign objects stay; bytes that are not changed stay as
    they are. The input is read and checked whole before anything is written. The new file is temporary at
    first, beside the output; it is read back, and only then takes the output's name. A key whose
    tensor shares memory with another's changes that other as well, as in the model that was saved.

    Args:
        checkpoint: the input, opened.
        path: the output.
        changes: key to new values, of the tensor's shape; they are rounded to its type, ties to even.
        note: plain values about this change, which the file keeps; the input's sha256 is added to them.
        overwrite: whether the output may exist already.
        progress: called now and then with the bytes read so far and the bytes in all.

    Returns:
        The sha256 of the input.

    Raises:
        CheckpointError: if the input is damaged, a tensor cannot be written in place or takes no such
            values, or the output cannot be written: it is the input, it exists, the disk is full.
        KeyError: if there is no such tensor.
        ValueError: if values have another shape than their tensor.
    """
    for key, values in changes.items():
        if values.shape != (shape := checkpoint.tensors[key].shape):
            raise ValueError(f"{key} is {shape}, and its new values are {values.shape}")
    target = check_output(checkpoint, path, overwrite=overwrite)
    container = container_named(checkpoint.container)
    with guarded(checkpoint.path):
        before = checkpoint.file.state()
    sha256 = checkpoint.verify(progress)
    with guarded(checkpoint.path), _writing(target), beside(target) as temporary:
        with temporary.open("x+b") as out:
            container.write(checkpoint, out, changes, {"input_sha256": sha256, **note})
            out.flush()
            os.fsync(out.fileno())
        _read_back(container.open(OpenFile(temporary)), changes)
        check_output(checkpoint, path, overwrite=overwrite)
        _refuse_changed([before], [checkpoint.file.state()])
        _take_name(temporary, target, overwrite=overwrite)
        _sync_folder(target.parent)
    return sha256


def write_folder(
    checkpoint: Checkpoint,
    path: str | os.PathLike[str],
    changes: Mapping[str, AnyArray],
    *,
    note: Note,
    progress: Progress | None = None,
) -> None:
    """Write a checkpoint with the small files beside it into a new folder, so that it loads as before.

    Of a checkpoint in several files each is written that changes, and the others are copied. Other weights,
    optimizers and folders are left out. The folder is temporary at first, as in `write_checkpoint`.

    Raises:
        CheckpointError: as `write_checkpoint` does, or if the folder exists.
    """
    target = Path(os.path.realpath(path))
    if target.exists():
        raise CheckpointError(printable(path), "exists already", "name another folder")
    if not target.parent.is_dir():
        raise CheckpointError(
            printable(path), f"there is no folder {printable(target.parent)}", "make it first"
        )
    files = checkpoint.parts or (checkpoint,)
    own = {file.path.name for file in files}
    with guarded(checkpoint.path):
        before = [file.file.state() for file in files]
    with guarded(checkpoint.path), _writing(target), beside(target) as temporary:
        temporary.mkdir()
        for file in files:
            values = {key: new for key, new in changes.items() if key in file.tensors}
            if values:
                write_checkpoint(file, temporary / file.path.name, values, note=note, progress=progress)
            else:
                shutil.copyfile(file.path, temporary / file.path.name)
        for name in companions(checkpoint.path.parent):
            if name not in own:
                shutil.copyfile(checkpoint.path.parent / name, temporary / name)
        _refuse_changed(before, [file.file.state() for file in files])
        temporary.rename(target)


def _refuse_changed(before: Sequence[object], after: Sequence[object]) -> None:
    """Refuse an input that somebody wrote to meanwhile.

    Raises:
        Damaged: if its state is another than before.
    """
    if before != after:
        raise Damaged("changed while it was being fixed", "wait for its training, or fix a copy of it")


def _take_name(temporary: Path, target: Path, *, overwrite: bool) -> None:
    """Give a finished file its name; without `overwrite`, a file that appeared there meanwhile stays.

    Raises:
        CheckpointError: if a file appeared there, and stays.
    """
    if not overwrite:
        try:
            os.link(temporary, target)  # which, unlike a renaming, fails where there is a file
        except FileExistsError:
            hint = "name another file, or add --overwrite"
            raise CheckpointError(printable(target), "exists already", hint) from None
        except OSError:
            pass  # a file system without links
        else:
            return
    temporary.replace(target)


def check_output(checkpoint: Checkpoint, path: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Return the file that writing to `path` would make, links followed.

    Raises:
        CheckpointError: if it is the input, exists already, or has no folder to be written in.
    """
    shown = printable(path)
    if "\x00" in os.fspath(path):
        raise CheckpointError(shown, "no valid path: it contains a NUL character")
    target = Path(os.path.realpath(path))
    if target == Path(os.path.realpath(checkpoint.path)) or _same_file(target, checkpoint.path):
        raise CheckpointError(shown, "this is the input, which is never overwritten", "name another file")
    if target.exists() and not target.is_file():
        raise CheckpointError(shown, "exists and is not a regular file", "name a file")
    if target.exists() and not overwrite:
        raise CheckpointError(shown, "exists already", "name another file, or add --overwrite")
    if not target.parent.is_dir():
        raise CheckpointError(shown, f"there is no folder {printable(target.parent)}", "make it first")
    if not os.access(target.parent, os.W_OK):
        what = f"nothing can be written in the folder {printable(target.parent)}"
        raise CheckpointError(shown, what, "name a file in another folder")
    return target


def _same_file(a: Path, b: Path) -> bool:
    try:
        return a.samefile(b)
    except OSError:
        return False


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Blame the output for what the system refuses.

    Raises:
        CheckpointError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        what = f"cannot be written ({error.strerror or error})"
        raise CheckpointError(printable(target), what, "name another file") from error


def _read_back(written: Checkpoint, changes: Mapping[str, AnyArray]) -> None:
    """Make sure that each change is in the file that was written.

    Raises:
        Damaged: if not: two tensors of one memory were to be changed to different values.
    """
    for key, values in changes.items():
        tensor = written.tensors[key]
        if not np.array_equal(tensor.read(), tensor.element.rounded(values), equal_nan=True):
            raise Damaged(
                f"{printable(key)} shares its memory, and was to hold different values under different names",
                "save the file again with clones of the tensors",
            )


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a crash, where the system can."""
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
