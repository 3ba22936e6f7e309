"""Intervals of 95 %: the one confidence that all figures and verdicts have."""

from __future__ import annotations

import math

TAIL = 0.025
"""Probability that the truth lies beyond one end of an interval."""
Z = 1.96
"""97.5 % point of the normal distribution."""
_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)  # 97.5 % points, 1 … 9 degrees


def student(degrees: int) -> float:
    """Return the 97.5 % point of Student's t, to about 1 %.

    >>> student(4), round(student(30), 2), round(student(10**6), 2)
    (2.78, 2.04, 1.96)
    """
    if degrees <= len(_STUDENT):
        return _STUDENT[degrees - 1]
    return Z + 2.37 / degrees + 2.82 / degrees**2  # Cornish–Fisher


def share_interval(share: float, samples: int) -> tuple[float, float]:
    """Return a 95 % interval of a share that was measured on independent samples.

    Wilson's score interval with continuity correction (Newcombe 1998, method 4), which errs on the
    wide side.

    >>> [round(end, 3) for end in share_interval(0.9, 100)]
    [0.82, 0.948]
    """
    z2, n = Z * Z, samples
    middle, scale = 2 * n * share + z2, 2 * (n + z2)
    below = z2 - 2 - 1 / n + 4 * share * (n * (1 - share) + 1)
    above = z2 + 2 - 1 / n + 4 * share * (n * (1 - share) - 1)
    low = (middle - 1 - Z * math.sqrt(max(below, 0.0))) / scale
    high = (middle + 1 + Z * math.sqrt(max(above, 0.0))) / scale
    return (max(0.0, low) if share > 0 else 0.0), (min(1.0, high) if share < 1 else 1.0)


def paired_interval(gained: int, lost: int, samples: int) -> tuple[float, float]:
    """Return a 95 % interval of the difference of two shares that were measured on the same samples.

    Wald's interval with half a sample added to each of the four cells (Agresti and Min 2005, "Simple improved
    confidence intervals for comparing matched proportions").

    Args:
        gained: samples that count for the first share alone.
        lost: samples that count for the second share alone.
        samples: all samples.

    >>> [round(end, 3) for end in paired_interval(20, 28, 335)]
    [-0.064, 0.017]
    """
    n, difference = samples + 2, (gained - lost) / (samples + 2)
    half = Z * math.sqrt(((gained + lost + 1) / n - difference**2) / n)
    return max(-1.0, difference - half), min(1.0, difference + half)
