"""Errors that the user can fix: one clear line for what is wrong, one for the help, and exit code 2."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import takewhile


class UserError(Exception):
    """Something that the user can fix: what is wrong, where, and what to do next.

    Attributes:
        what: what is wrong and where, as one line without a full stop.
        hint: the next step, as one line; may be empty.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        self.what = what
        self.hint = hint
        super().__init__(what, hint)

    def __str__(self) -> str:
        return f"{self.what}: {self.hint}" if self.hint else self.what


class CheckpointError(UserError):
    """A file that cannot be read as a checkpoint, whatever the reason underneath.

    Attributes:
        path: the file.
        kind: what is wrong with it, in a few words ("truncated", "a git-LFS pointer").
    """

    def __init__(self, path: str | os.PathLike[str], kind: str, hint: str = "") -> None:
        self.path = os.fspath(path)
        self.kind = kind
        super().__init__(f"{self.path}: {kind}", hint)

    def __reduce__(self) -> tuple[type[CheckpointError], tuple[str, str, str]]:
        """Let another process raise it."""
        return CheckpointError, (self.path, self.kind, self.hint)


class MissingPackageError(UserError):
    """A package that this command needs is not installed; the same line says how to install it."""

    def __init__(self, package: str, needed_for: str, extra: str) -> None:
        self.package = package
        super().__init__(
            f"{needed_for} needs {package}, which is not installed here: pip install 'vqdoctor[{extra}]'"
        )


def near(word: str, known: Iterable[str], *, most: int = 1) -> str:
    """Return "did you mean …?" with the known words that look like it; empty if all differ too much."""
    from difflib import SequenceMatcher, get_close_matches  # 8 ms that only a mistake should cost

    def rank(other: str) -> tuple[float, int]:
        """Of words that are equally similar, the one that begins alike for longer comes first."""
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(word, other, strict=False))
        return -SequenceMatcher(None, other, word).ratio(), -len(list(alike))

    found = get_close_matches(word, sorted(known), n=4 * most, cutoff=0.6 if most == 1 else 0.5)
    return f"did you mean {' or '.join(sorted(found, key=rank)[:most])}?" if found else ""


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown word: the known one that looks like it, and all that are known."""
    names = sorted(known)
    return f"{near(word, names)} known: {', '.join(names)}".strip()
