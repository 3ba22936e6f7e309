"""Fill values: a number that stands for what was not measured, far from every number that was."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TIMES, IN_ALL = 2, 4
"""How often a channel has the very same number, and how many there are in all channels, at least: an outlier
comes once."""
GAP = 10.0
"""Least distance of that number to the nearest other one, in standard deviations of the others. Ten is beyond
heavy tails, which also leave no gap. Of 59 models of others without fill values none showed any at this."""
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
    apart from all others. Channels whose other numbers are all the same have none, as with a rare flag.

    Args:
        rows: finite numbers [N, C].
    """
    table = rows.astype(np.float64)
    if not len(table):
        return None
    total = table.var(axis=0)
    filled = np.zeros(table.shape, dtype=bool)
    values = np.zeros(table.shape[1])
    for edge, nearest in ((table.min(axis=0), np.min), (table.max(axis=0), np.max)):
        at_edge = table == edge
        times = at_edge.sum(axis=0)
        kept = ~at_edge
        others = np.maximum(kept.sum(axis=0), 1)
        mean = table.sum(axis=0, where=kept) / others
        spread = np.sqrt(np.square(table - mean).sum(axis=0, where=kept) / others)
        start = np.inf if nearest is np.min else -np.inf
        apart = np.abs(nearest(table, axis=0, where=kept, initial=start) - edge)
        found = (times >= TIMES) & (times <= MOST * len(table)) & (spread > 0) & (apart >= GAP * spread)
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
