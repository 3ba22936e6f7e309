"""The course of a layer over its training: the noise of single intervals taken off."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from vqdoctor.core.check import CannotJudge
from vqdoctor.core.evidence import Course

LEAST = 8
"""Intervals that a course needs: fewer show no direction."""
WINDOW = 3
"""Intervals whose median stands for one."""


def smooth(values: Sequence[float]) -> list[float]:
    """Return the median of each interval and the two before it."""
    return [median(values[max(0, i - WINDOW + 1) : i + 1]) for i in range(len(values))]


def require_length(course: Course, least: float = LEAST) -> None:
    """Refuse a course that is too short.

    Raises:
        CannotJudge: if it has fewer intervals.
    """
    if len(course.steps) < least:
        raise CannotJudge(f"the trace has {len(course.steps)} intervals, and {least:g} are needed")


def falling(values: Sequence[float]) -> float:
    """Return the share of pairs that fall less the share of pairs that rise: Kendall's tau, negated."""
    pairs = [(a > b) - (a < b) for i, a in enumerate(values) for b in values[i + 1 :]]
    return sum(pairs) / len(pairs) if pairs else 0.0
