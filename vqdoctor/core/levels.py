"""The ordered scales on which findings and remedies are placed."""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class _Named(IntEnum):
    @property
    def label(self) -> str:
        """The name in lower case, as people read it."""
        return self.name.lower()


class Level(_Named):
    """An ordered scale whose members are written by their labels in reports and options."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the member called `text`, in any case.

        Raises:
            ValueError: if there is no such member; the message lists the known ones.
        """
        try:
            return cls[text.upper()]
        except KeyError:
            known = ", ".join(member.label for member in cls)
            raise ValueError(f"{text!r} is none of {known}") from None


class Severity(Level):
    """How bad a finding is if it is true."""

    NOTE = 1
    WARNING = 2
    ERROR = 3


class Confidence(Level):
    """How sure it is that a finding is true."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3


class Stage(_Named):
    """The priority order of causes; the first digit of a check's code is its stage, which reports show."""

    GRADIENT = 1
    LOSS = 2
    INITIALISATION = 3
    SCHEDULE = 4
    USAGE = 5
    DOWNSTREAM = 6
    FILE = 9
