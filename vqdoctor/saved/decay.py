"""The decay of an EMA whose file does not record it, proven by what is left of its start.

The count of a code that was never chosen is the start value, 1, times the decay at every update. Float32
rounds each product, so after hundreds of updates the last bits tell one decay from all others, and one way
of writing the update from another. A count that a revival has set is younger than the training, and does not
fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

DECAYS = tuple(1 - step * 10.0**-power for power in range(1, 7) for step in (5, 4, 3, 2, 1))
"""Decays that somebody would type: 0.5 to 0.999999."""
MOST_UPDATES = 300_000
"""Updates up to which the products are computed."""
LEAST_UPDATES = 20
"""Under this many updates too few bits are rounded for a proof."""
_LEAST = 0.05
"""Under this weight the start no longer matters."""
_OFF = (0, -1, 1, -2, 2)
"""Updates by which an EMA and its optimizer may differ: the first batch may only initialise, the last may be
of an unfinished step."""
_ROUGHLY = 0.1
"""Relative difference of 1 - d that rounding may make, before the bits are compared: float32 makes 0.05 at
0.999999, 0.002 at 0.99999."""

Product = Callable[[np.float32], np.float32]


def proven_decay(counts: NDArray[np.float32], updates: int | None) -> float | None:
    """Return the decay that leaves exactly the smallest of these counts of a start at 1; None if none does.

    Args:
        counts: the EMA counts, [K].
        updates: how many updates there were, as the optimizer remembers it; None where it does not.
    """
    if updates is None or not LEAST_UPDATES <= updates <= MOST_UPDATES:
        return None
    least = np.float32(counts.min(initial=np.inf))
    if not _LEAST < least < 1:
        return None
    rate = -math.log(least) / updates
    for decay in DECAYS:
        if abs(-math.log(decay) / rate - 1) < _ROUGHLY and _leaves(decay, updates, least):
            return decay
    return None


def _leaves(decay: float, updates: int, count: np.float32) -> bool:
    """Whether some usual way of writing the update leaves exactly that count after about these updates."""
    return any(
        left == count
        for product in _products(decay)
        for left in _after(product, [updates + off for off in _OFF])
    )


def _products(decay: float) -> Iterator[Product]:
    by, rest = np.float32(decay), np.float32(1 - decay)
    yield lambda count: count * by  # count.mul_(decay).add_(chosen, alpha=1 - decay)
    yield lambda count: count - rest * count  # count.sub_((1 - decay) * (count - chosen))
    # count.lerp_(chosen, 1 - decay): the processor rounds once
    yield lambda count: np.float32(float(count) - float(rest) * float(count))


def _after(product: Product, updates: list[int]) -> Iterator[np.float32]:
    count = np.float32(1)
    for number in range(1, max(updates) + 1):
        count = product(count)
        if number in updates:
            yield count
