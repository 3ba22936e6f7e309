"""Names of checkpoint files, and writing a file whole or not at all, at whatever moment the process dies."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors")
"""Endings that most checkpoints have."""
ALL_SUFFIXES = (*SUFFIXES, ".th", ".pth.tar")
"""Those, and older ones that a checkpoint in a folder may have."""


@contextlib.contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Give the name of a temporary file beside `target`, to be written and then renamed over it.

    It does not exist yet. Whatever happens it is gone afterwards; what a killed write of the same target
    left behind is gone before. A file that another process still writes stays: its name holds the process.

    Raises:
        OSError: if the folder cannot be read.
    """
    left = re.compile(rf"\.{re.escape(target.name)}-([0-9a-f]{{8}})[0-9a-f]{{8}}\.tmp")
    for file in target.parent.iterdir():
        if (found := left.fullmatch(file.name)) and not _alive(int(found[1], 16)):
            with contextlib.suppress(OSError):
                file.unlink()
    temporary = target.with_name(f".{target.name}-{os.getpid():08x}{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    """Return whether a process of that number runs on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
