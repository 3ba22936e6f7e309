"""Reading a file's bytes: regular files only, every read checked against the file's length."""

from __future__ import annotations

import os
import stat
import struct
import weakref
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vqdoctor.checkpoint.budget import Budget
from vqdoctor.core.errors import CheckpointError

CHUNK = 1 << 22

_SPECIAL = {
    "d": "a folder", "p": "a named pipe", "s": "a socket", "c": "a character device", "b": "a block device",
}  # fmt: skip
"""Kinds of files by their letter in `ls -l`."""
TRUNCATED = "fetch or copy the file again"
FEWER = "save the weights alone: torch.save(model.state_dict(), path)"
# What hostile bytes can make a reader raise. NameError and ImportError are bugs, and stay visible.
_FAULTS = (
    ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, LookupError, RecursionError,
    TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip


class Damaged(Exception):
    """A fault of a file, raised by code that does not know its path; `guarded` adds the path.

    Attributes:
        kind: the fault, in a few words.
        hint: the next step of the user; may be empty.
    """

    def __init__(self, kind: str, hint: str = "") -> None:
        self.kind = kind
        self.hint = hint
        super().__init__(kind, hint)


def printable(text: str | os.PathLike[str]) -> str:
    """Return `text` with everything escaped that a terminal or UTF-8 stumbles over."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in os.fspath(text))


@contextmanager
def guarded(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn everything that reading a stranger's file can raise into one `CheckpointError`."""
    shown = printable(path)
    try:
        yield
    except CheckpointError:
        raise
    except Damaged as damage:
        raise CheckpointError(shown, damage.kind, damage.hint) from None
    except MemoryError as error:
        raise CheckpointError(shown, "asks for more memory than there is") from error
    except OSError as error:
        raise CheckpointError(shown, f"cannot be read ({error.strerror or error})") from error
    except _FAULTS as error:
        what = printable(f"{type(error).__name__}: {error}")[:200]
        raise CheckpointError(shown, f"damaged ({what})", TRUNCATED) from error


class OpenFile:
    """A regular file, open for reading at any place. It closes itself when nobody holds it any more.

    Attributes:
        path: the path that it was opened by.
        size: its length in bytes when it was opened.
        budget: the work that may be spent on it, and on all files of the same checkpoint.
    """

    def __init__(self, path: Path, budget: Budget | None = None) -> None:
        """Open `path`.

        Args:
            path: the file.
            budget: that of the checkpoint that the file is a part of; the file earns it nothing.

        Raises:
            Damaged: if it is not a regular file, or empty.
            OSError: if the system refuses.
        """
        # Looked at before it is opened: opening a FIFO hangs, and opening a device can do things.
        refuse_special(path.stat())
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        weakref.finalize(self, os.close, fd)
        self._fd = fd
        status = os.fstat(fd)
        refuse_special(status)
        self.path = path
        self.size = status.st_size
        self.budget = budget or Budget(self.size)
        if self.size == 0:
            raise Damaged("the file is empty", "its writing or download failed: save or fetch it again")

    def pread(self, start: int, size: int) -> bytes:
        """Return exactly `size` bytes from `start`.

        Raises:
            Damaged: if the file does not reach so far.
        """
        self._within(start, size)
        parts = []
        while size:
            part = os.pread(self._fd, size, start)
            if not part:
                raise Damaged("the file was cut while it was being read", TRUNCATED)
            parts.append(part)
            start += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def chunks(self, start: int, size: int) -> Iterator[bytes]:
        """Yield `size` bytes from `start`, a few MiB at a time, so that memory stays flat."""
        self._within(start, size)
        for offset in range(start, start + size, CHUNK):
            yield self.pread(offset, min(CHUNK, start + size - offset))

    def read(self, start: int, size: int) -> bytearray:
        """Return `size` bytes from `start`, in one piece of memory: a mapping dies with a file that is cut.

        Raises:
            Damaged: if the file does not reach so far, or no longer does.
        """
        self._within(start, size)
        found = bytearray(size)
        rest = memoryview(found)
        while rest:
            got = os.preadv(self._fd, [rest], start)
            if not got:
                raise Damaged("the file was cut while it was being read", TRUNCATED)
            start, rest = start + got, rest[got:]
        return found

    def state(self) -> tuple[int, ...]:
        """Return the numbers that change when somebody writes to the file, or puts another one in its place.

        Raises:
            OSError: if there is no such file any more.
        """
        return tuple(
            number
            for status in (os.fstat(self._fd), self.path.stat())
            for number in (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        )

    def _within(self, start: int, size: int) -> None:
        if start < 0 or size < 0 or start + size > self.size:
            raise Damaged("truncated: it refers to bytes past its end", TRUNCATED)


class SpooledFile(OpenFile):
    """Bytes that came from elsewhere, in a temporary file that has no name and is gone with this object."""

    def __init__(self, path: Path, chunks: Iterable[bytes]) -> None:
        """Write the chunks away.

        Args:
            path: where they came from, for error messages.
            chunks: the bytes.

        Raises:
            Damaged: if there are none, or no room for them.
        """
        import tempfile  # 10 ms that only such a file should cost

        with tempfile.TemporaryFile() as spool:
            for chunk in chunks:
                try:
                    spool.write(chunk)
                    spool.flush()
                except OSError as error:
                    what = f"does not fit into {tempfile.gettempdir()} ({error.strerror or error})"
                    raise Damaged(what, "TMPDIR=/a/larger/place") from error
            fd = os.dup(spool.fileno())
        weakref.finalize(self, os.close, fd)
        self._fd, self.path, self.size = fd, path, os.fstat(fd).st_size
        self.budget = Budget(self.size)
        if self.size == 0:
            raise Damaged("there is nothing in it", "its writing or download failed: save or fetch it again")


class Piece(OpenFile):
    """A run of bytes of a file, read as if it were a file of its own."""

    def __init__(self, file: OpenFile, start: int, size: int) -> None:
        """Take `size` bytes from `start`.

        Raises:
            Damaged: if the file does not reach so far.
        """
        file._within(start, size)
        self.path, self.size, self.budget = file.path, size, file.budget
        self._file, self._start = file, start

    def pread(self, start: int, size: int) -> bytes:
        """Return exactly `size` bytes from `start`."""
        self._within(start, size)
        return self._file.pread(self._start + start, size)

    def read(self, start: int, size: int) -> bytearray:
        """Return `size` bytes from `start`, in one piece of memory."""
        self._within(start, size)
        return self._file.read(self._start + start, size)

    def state(self) -> tuple[int, ...]:
        """Return the state of the whole file."""
        return self._file.state()


def refuse_special(status: os.stat_result) -> None:
    """Refuse folders, pipes, sockets and devices.

    Raises:
        Damaged: with the name of its kind.
    """
    if kind := _SPECIAL.get(stat.filemode(status.st_mode)[0]):
        raise Damaged(f"{kind}, not a file", "give a checkpoint file")
