"""The checks: one file each, found by scanning this package. No torch, no numpy."""

import sys
from functools import cache

from vqdoctor.core.check import Check
from vqdoctor.core.discovery import pieces


@cache
def all_checks() -> tuple[Check, ...]:
    """Return every check, in the order of their codes."""
    return tuple(sorted(pieces(sys.modules[__name__], "CHECK", Check), key=lambda c: c.code))
