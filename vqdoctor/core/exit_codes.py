"""The exit codes: the same for every command, and never changed by the output format."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit code of a command."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> ExitCode:
        """Attach the sentence that README's table is generated from."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    OK = 0, "nothing at or above the bar (`--fail-on`, by default error)"
    FINDINGS = 1, "findings at or above the bar, a failed gate, or a fix that missed its goals"
    USER_ERROR = 2, "the user's error: a path, an option, a setting, an unreadable file"
    INCOMPLETE = 3, "incomplete or inconclusive: too little evidence, or a check that crashed"
