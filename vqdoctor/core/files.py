"""Names of checkpoint files, and writing a file whole or not at all, at whatever moment the process dies."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import secrets
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors")
"""Endings that most checkpoints have."""
ALL_SUFFIXES = (*SUFFIXES, ".th", ".pth.tar")
"""Those, and older ones that a checkpoint in a folder may have."""


_STALE = 86_400.0
"""Seconds after which the temporary of another machine's process is left behind: none writes so slowly."""


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Give the name of a temporary file or folder beside `target`, to be written and then renamed to it.

    It does not exist yet. Whatever happens it is gone afterwards; the rest of a killed write of the same
    target is gone before. A file that another process still writes stays: its name holds machine and process.

    Raises:
        OSError: if the folder cannot be read.
    """
    machine = f"{zlib.crc32(os.fsencode(platform.node())):08x}"
    left = re.compile(rf"\.{re.escape(target.name)}-([0-9a-f]{{8}})([0-9a-f]{{8}})[0-9a-f]{{8}}\.tmp")
    for file in target.parent.iterdir():
        found = left.fullmatch(file.name)
        if found and _is_left_behind(file, int(found[2], 16) if found[1] == machine else None):
            _remove(file)
    temporary = target.with_name(f".{target.name}-{machine}{os.getpid():08x}{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
    finally:
        _remove(temporary)


def write_whole(target: Path, text: str | bytes, mode: int | None = None) -> None:
    """Write a file whole or not at all.

    Args:
        target: the file.
        text: its content; a text is written in UTF-8.
        mode: its permissions; None is those of a new file.

    Raises:
        OSError: if it cannot be written.
    """
    with beside(target) as temporary:
        with temporary.open("xb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
        if mode is not None:
            temporary.chmod(mode)
        temporary.replace(target)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_left_behind(file: Path, process: int | None) -> bool:
    """Return whether nobody writes a temporary any more; None is a process of another machine."""
    try:
        if process is None:
            return time.time() - file.stat().st_mtime > _STALE
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # another user's process, or a file that is gone by now
        pass
    return False
