"""The patch of a user's source as plain values: what was changed, and what proved it."""

from __future__ import annotations

from typing import Literal

from vqdoctor.core.frozen import frozen

SourceStatus = Literal["proven", "unproven", "not-placed"]


@frozen
class SourceStep:
    """One step of the plan, in the source.

    Attributes:
        remedy: its name.
        codes: the findings that asked for it.
        status: proven, and in the patch; unproven, and only shown; or not placed in the source.
        what: the change, in a few words; "" where there is none.
        reason: what proved it, or why it is not in the patch.
        tried: how many ways to write it were examined.
        diff: an unproven change; "" otherwise.
    """

    remedy: str
    codes: tuple[str, ...]
    status: SourceStatus
    what: str = ""
    reason: str = ""
    tried: int = 0
    diff: str = ""


@frozen
class SourcePatch:
    """The patch of one file.

    Attributes:
        path: the file, as the user named it.
        diff: the proven changes as a unified diff; "" where there are none.
        written: whether the file holds them now.
        steps: the steps of the plan, in its order.
    """

    path: str
    diff: str
    written: bool
    steps: tuple[SourceStep, ...]
