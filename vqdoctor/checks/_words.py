"""Problems and their numbers: short in the message, and in full beside it."""

from collections.abc import Iterator, Sequence
from functools import partial

from vqdoctor.core.finding import Measurement, Problem
from vqdoctor.core.levels import Confidence, Severity

Problems = Iterator[Problem]
"""The problems that a check yields."""


def figure(value: float) -> str:
    """Return a number with three figures: "0.0153", "1.5", "28,752", "8.4e-06"."""
    if value != 0 and abs(value) < 1e-3:
        return f"{value:.2g}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def percent(share: float) -> str:
    """Return a share as a percentage with two figures: "0.39 %", "28 %"."""
    value = 100 * share
    return f"{value:.2g} %" if 0 < value < 10 else f"{value:.0f} %"


def listed(names: Sequence[str], total: int | None = None, most: int = 3) -> str:
    """Return the first names and how many more there are: "a, b, c and 4 more"."""
    total = len(names) if total is None else total
    shown = names[:most]
    rest = total - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")


def measured(name: str, value: float, limit: float | None = None, unit: str = "") -> Measurement:
    """Return a number behind a problem, with the limit that it is compared with."""
    return Measurement(name=name, value=value, limit=limit, unit=unit)


def if_known(
    name: str, value: float | None, limit: float | None = None, unit: str = ""
) -> Measurement | None:
    """Return a number behind a problem; None, which a problem leaves out, if it was not measured."""
    return None if value is None else measured(name, value, limit, unit)


def problem(
    severity: Severity,
    message: str,
    *measurements: Measurement | None,
    confidence: Confidence = Confidence.HIGH,
    decide_with: str = "",
    remedies: tuple[str, ...] = (),
    explains: tuple[str, ...] = (),
) -> Problem:
    """Return a problem: how bad it is, one sentence, and the numbers behind it, the decisive one first."""
    return Problem(
        message=message,
        severity=severity,
        confidence=confidence,
        measurements=tuple(m for m in measurements if m is not None),
        decide_with=decide_with,
        remedies=remedies,
        explains=explains,
    )


error = partial(problem, Severity.ERROR)
warning = partial(problem, Severity.WARNING)
note = partial(problem, Severity.NOTE)
