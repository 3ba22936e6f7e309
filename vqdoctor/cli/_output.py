"""The only place that writes: standard output, complaints, progress, and files, whole or not at all."""

from __future__ import annotations

import codecs
import contextlib
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from vqdoctor.core.errors import UserError
from vqdoctor.render import RenderOptions, printable


def terminal_options() -> RenderOptions:
    """Return what standard output can show: width and colour on a terminal, 80 plain columns elsewhere."""
    terminal = _is_terminal(sys.stdout)
    return RenderOptions(
        width=shutil.get_terminal_size((80, 24)).columns if terminal else 80,
        color=terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
        ascii=not _is_utf8(sys.stdout),
    )


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def _is_utf8(stream: TextIO | None) -> bool:
    try:
        return codecs.lookup(getattr(stream, "encoding", None) or "ascii").name == "utf-8"
    except LookupError:
        return False


def write(text: str) -> None:
    """Write to standard output; a reader who has gone is no error.

    Raises:
        UserError: if it cannot be written for another reason, such as a full disk.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _forget(sys.stdout)
    except OSError as error:
        _forget(sys.stdout)
        raise UserError(f"standard output: {error.strerror or error}", "write to another place") from error


def flush() -> None:
    """Flush standard output where it may still hold text that others wrote."""
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError:
            _forget(sys.stdout)


def _forget(stream: TextIO) -> None:
    """Send the rest to nowhere, so that Python's last flush does not fail and change the exit code."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def complain(message: str) -> None:
    """Write one line to standard error."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            sys.stderr.write(printable(message, ascii=not _is_utf8(sys.stderr)) + "\n")


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str], None] | None]:
    """Give a function that shows what is being done: on standard error, and only on a terminal."""
    if not _is_terminal(sys.stderr):
        yield None
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    with console.status("", spinner="line") as status:
        yield lambda message: status.update(Text(printable(message)))


def check_target(path: Path, inputs: tuple[Path, ...]) -> None:
    """Make sure, before the long work, that a file can be written there and is none of the inputs.

    Raises:
        UserError: if not.
    """
    for source in inputs:
        if path.resolve() == source.resolve() or _same_file(path, source):
            raise UserError(f"--save {path}: this is an input", "save under another name")
    if path.exists() and not path.is_file():
        raise UserError(f"--save {path}: exists and is no regular file", "name a file")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise UserError(f"--save {path}: there is no folder {folder}", f"mkdir -p {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"--save {path}: the folder {folder} cannot be written to", "save elsewhere")


def _same_file(a: Path, b: Path) -> bool:
    try:
        return a.samefile(b)
    except OSError:
        return False


def save(text: str, path: Path) -> None:
    """Write a file whole or not at all: to a temporary file beside it, then renamed over it.

    Raises:
        UserError: if it cannot be written.
    """
    target = path.resolve()  # through a link, so that the link survives
    temporary = target.with_name(f".vqdoctor-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
        temporary.replace(target)
    except OSError as error:
        raise UserError(f"--save {path}: {error.strerror or error}", "save elsewhere") from error
    finally:
        temporary.unlink(missing_ok=True)
