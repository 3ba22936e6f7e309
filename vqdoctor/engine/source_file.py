"""The user's source as a file: whether git holds it, and writing over it."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import tokenize
from pathlib import Path

from vqdoctor.core.errors import UserError
from vqdoctor.core.files import write_whole

COMMIT_IT = "commit it first, or take the patch: --diff > fix.patch"
_SAFE = ("git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
"""git without the programs that a repository may name."""
_OFFLINE = {"GIT_NO_LAZY_FETCH": "1", "GIT_ALLOW_PROTOCOL": "none"}
"""A partial clone fetches nothing: the first for git 2.45 and later, the second for all."""


def require_committed(source: Path) -> None:
    """Make sure that the file may be written, and that git holds it as it is: then no backup is needed.

    The file's own hash is compared with the commit's: git runs no filter, hook or monitor of the repository.
    Where git itself changes line ends, CRLF stands for LF.

    Raises:
        UserError: if it may not, git does not hold it, or git is absent.
    """
    target = source.resolve()
    try:
        status, held = _git(target, "rev-parse", f"HEAD:./{target.name}")
        if status:
            raise UserError(f"--write {source}: it is in no commit", COMMIT_IT)
        text = target.read_bytes()
        if _hash(text, held) != held and not (
            _hash(text.replace(b"\r\n", b"\n"), held) == held and _changes_line_ends(target)
        ):
            raise UserError(f"--write {source}: it has changes that are not committed", COMMIT_IT)
        if not target.stat().st_mode & stat.S_IWUSR or not os.access(target, os.W_OK):
            hint = f"chmod u+w {source}, or take the patch: --diff > fix.patch"
            raise UserError(f"--write {source}: the file is read-only", hint)
    except (OSError, subprocess.TimeoutExpired):
        raise UserError(f"--write {source}: git cannot be asked whether it is committed", COMMIT_IT) from None


def name_in_patch(source: Path) -> str:
    """Return the file's path from the top of its repository; outside of one, from the current folder.

    A file behind a link is named by its own path, since git applies no patch through a link.
    """
    target = source.resolve()
    top = next((folder for folder in target.parents if (folder / ".git").exists()), Path.cwd())
    return target.relative_to(top).as_posix() if target.is_relative_to(top) else target.name


def encoding_of(source: Path) -> str:
    """Return the encoding that a Python file declares; UTF-8 where it declares none that is known."""
    try:
        with source.open("rb") as file:
            return tokenize.detect_encoding(file.readline)[0].removesuffix("-sig")
    except (OSError, SyntaxError):
        return "utf-8"


def _git(target: Path, *words: str) -> tuple[int, str]:
    """Return the exit status and the output of git, asked in the folder of a file."""
    told = subprocess.run(
        [*_SAFE, "-C", str(target.parent), *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **_OFFLINE},
    )
    return told.returncode, told.stdout.strip()


def _hash(text: bytes, like: str) -> str:
    """Return git's hash of a file's text, by the function that has made another hash."""
    kind = hashlib.sha256 if len(like) == 64 else hashlib.sha1
    return kind(b"blob %d\0" % len(text) + text).hexdigest()


def _changes_line_ends(target: Path) -> bool:
    """Return whether git turns CRLF into LF when this file is committed."""
    _, automatic = _git(target, "config", "--get", "core.autocrlf")
    _, attributes = _git(target, "check-attr", "text", "eol", "--", target.name)
    values = {line.rpartition(": ")[2] for line in attributes.splitlines()}
    if "unset" in values:
        return False
    return automatic in ("true", "input") or bool(values & {"set", "auto", "lf", "crlf"})


def write_over(source: Path, before: bytes, text: bytes) -> None:
    """Write the file whole or not at all, with the permissions that it has.

    Args:
        source: the file.
        before: what it must still hold.
        text: its new content.

    Raises:
        UserError: if it holds something else by now, or cannot be written.
    """
    target = source.resolve()  # through a link, so that the link survives
    try:
        if target.read_bytes() != before:
            hint = "run it again; the new edit is kept, and nothing was written"
            raise UserError(f"--write {source}: the file was changed while the patch was proven", hint)
        write_whole(target, text, mode=target.stat().st_mode)
    except OSError as error:
        raise UserError(f"--write {source}: {error.strerror or error}") from None
