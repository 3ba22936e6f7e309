"""Names of checkpoint files, and writing a file whole or not at all, at whatever moment the process dies."""

from __future__ import annotations

import contextlib
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
    left behind is gone before.

    Raises:
        OSError: if the folder cannot be read.
    """
    left = re.compile(rf"\.{re.escape(target.name)}-[0-9a-f]{{16}}\.tmp")
    for file in target.parent.iterdir():
        if left.fullmatch(file.name):
            with contextlib.suppress(OSError):
                file.unlink()
    temporary = target.with_name(f".{target.name}-{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
