"""The remedies: one file each, found by scanning this package. None needs numpy before it is applied."""

from __future__ import annotations

import sys
from functools import cache

from vqdoctor.core.discovery import pieces
from vqdoctor.core.remedy import Remedy

__all__ = ["all_remedies"]


@cache
def all_remedies() -> tuple[Remedy, ...]:
    """Return every remedy, in the priority order of the plan."""
    found = pieces(sys.modules[__name__], "REMEDY", Remedy)
    return tuple(sorted(found, key=lambda r: (r.stage, r.name)))
