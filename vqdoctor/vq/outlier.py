"""One code far above an otherwise even histogram: padding, silence or a masked value, and no collapse."""

from __future__ import annotations

from vqdoctor.vq.ema import A

ABOVE = 10.0
"""The one code is chosen at least this many times as often as the next: padding of 81 % of the frames
measured 184 times, the background's code of a digit autoencoder 2.2 times."""
TAKES = 0.25
"""Least share of the usage that it takes; the background's code of that autoencoder takes 0.18."""
LEFT = 0.02
"""Least share that the others keep. A collapse leaves less over: collapsed samples measured 0 on data, and up
to 0.013 in the window of the EMA counts."""
EVEN = 0.2
"""Least share of K that the others are worth by (sum p)^2 / sum p^2, which is at most their perplexity: a
working codebook of medium size has that perplexity (VQ501)."""
TIED = 1e-3
"""Others within this share of each other were never chosen: EMA counts on their way down are equal."""
FEWEST = 16
"""Codes under which no histogram is called even."""


def others(counts: A) -> A | None:
    """Return the counts [K - 1] of all codes but one that stands far above them; None without such a code.

    >>> import numpy as np
    >>> rest = np.arange(10.0, 30.0)
    >>> float(others(np.array([9000.0, *rest])).sum())
    390.0
    >>> others(np.array([9000.0, *rest, 3000.0])) is None
    True
    """
    if len(counts) < FEWEST:
        return None
    top = float(counts.max())
    rest = counts[counts < top]
    if len(rest) < len(counts) - 1 or not float(rest.max()) > float(rest.min()) * (1 + TIED):
        return None
    left, total = float(rest.sum()), float(counts.sum())
    stands_out = top >= max(ABOVE * float(rest.max()), TAKES * total) and left >= LEFT * total
    return rest if stands_out and left**2 >= EVEN * len(counts) * float((rest**2).sum()) else None
