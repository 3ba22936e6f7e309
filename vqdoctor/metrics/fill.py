"""Fill values: a number that stands for what was not measured, far from every number that was."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TIMES, IN_ALL = 2, 4
"""How often a channel has the very same number, and how many there are in all channels, at least: an outlier
comes once."""
APART = 30.0
"""Least distance of that number to the nearest other one, in whole ranges of the others. It is nearer where
logarithms around 10 are padded with 0 (1.2), and where 8 bits hold 16 levels and a saturated 255 (16)."""
LEVELS = 16
"""Least number of different others: paper and ink are two kinds of data, be they as far apart as they may."""
MOST = 0.5
"""Largest share of a channel that fill values are: with more of them there is no telling which is which."""


@dataclass(frozen=True, kw_only=True)
class Fill:
    """The fill values of a table.

    Attributes:
        channel: the channel in which they have the largest part of the variance.
        value: the fill value there.
        channels: how many channels have one.
        share: share of all numbers that are fill values.
        variance: share of the variance of the table, summed over its channels, that would be gone with them.
    """

    channel: int
    value: float
    channels: int
    share: float
    variance: float


def fill_values(rows: NDArray[np.float32]) -> Fill | None:
    """Return the fill values of a table; None where there is none.

    A fill value is the smallest or the largest number of a channel, comes again, and lies
    apart from all others. Channels with few other numbers have none, as with a rare flag or a scanned page.

    Args:
        rows: finite numbers [N, C].
    """
    table = rows.astype(np.float64)
    if not len(table):
        return None
    total = table.var(axis=0)
    filled = np.zeros(table.shape, dtype=bool)
    values = np.zeros(table.shape[1])
    for edge, is_low in ((table.min(axis=0), True), (table.max(axis=0), False)):
        at_edge = table == edge
        times = at_edge.sum(axis=0)
        kept = ~at_edge
        low = np.min(table, axis=0, where=kept, initial=np.inf)
        high = np.max(table, axis=0, where=kept, initial=-np.inf)
        apart, extent = np.abs((low if is_low else high) - edge), high - low
        found = (times >= TIMES) & (times <= MOST * len(table)) & (extent > 0) & (apart >= APART * extent)
        for at in np.flatnonzero(found):
            found[at] = len(np.unique(table[kept[:, at], at])) >= LEVELS
        filled |= at_edge & found
        values = np.where(found, edge, values)
    if filled.sum() < IN_ALL:
        return None
    left = np.where(filled.any(axis=0), table.var(axis=0, where=~filled), total)
    channel = int((total - left).argmax())
    return Fill(
        channel=channel,
        value=float(values[channel]),
        channels=int(filled.any(axis=0).sum()),
        share=float(filled.mean()),
        variance=float(1 - left.sum() / total.sum()),
    )
