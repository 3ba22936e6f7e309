"""The remedies that act: one file each, found by scanning this package. Showing one needs no numpy."""

import sys
from collections.abc import Iterable
from functools import cache

from vqdoctor.core.check import Check
from vqdoctor.core.discovery import pieces
from vqdoctor.remedies._remedy import Remedy

__all__ = ["Remedy", "all_remedies", "with_advice"]


@cache
def all_remedies() -> tuple[Remedy, ...]:
    """Return every remedy that acts, in the priority order of the plan."""
    return _in_order(pieces(sys.modules[__name__], "REMEDY", Remedy))


def with_advice(checks: Iterable[Check]) -> tuple[Remedy, ...]:
    """Return every remedy that acts and the checks' own advice, in the priority order of the plan.

    Advice has the stage of its check, and neither `apply` nor `plan`.
    """
    advice = (Remedy(**vars(advice), stage=check.stage) for check in checks for advice in check.own_advice)
    return _in_order((*all_remedies(), *advice))


def _in_order(remedies: Iterable[Remedy]) -> tuple[Remedy, ...]:
    return tuple(sorted(remedies, key=lambda remedy: (remedy.stage, remedy.name)))
