"""From codes by sample and position to `PositionUse`: for a dump and a model alike."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vqdoctor.core.evidence import PositionUse
from vqdoctor.core.evidence.shown import MOST_BINS, MOST_CODES
from vqdoctor.metrics.entropy import plug_in_entropy
from vqdoctor.probes._plane import short


def position_use(codes: NDArray[np.int64], grid: tuple[int, ...] = ()) -> PositionUse:
    """Return which codes are chosen where.

    Args:
        codes: chosen codes, [samples, positions], negative where masked; at least one is not.
        grid: height and width of the positions, in the order of `codes`; else empty.
    """
    positions = codes.shape[1]
    size = math.ceil(positions / MOST_BINS)
    every = codes[codes >= 0]
    counts = np.bincount(every)
    most = np.argsort(-counts, kind="stable")[: min(MOST_CODES, int(np.count_nonzero(counts)))]
    perplexity, shares = [], []
    for first in range(0, positions, size):
        here = codes[:, first : first + size]
        chosen = np.bincount(here[here >= 0], minlength=len(counts))
        perplexity.append(float(np.exp(plug_in_entropy(chosen))) if chosen.any() else 0.0)
        shares.append(chosen[most] / max(1, chosen.sum()))
    return PositionUse(
        source="batch",
        sample_size=len(every),
        positions=positions,
        grid=grid if len(grid) == 2 and math.prod(grid) == positions else (),
        bin_size=size,
        perplexity=short(np.array(perplexity)),
        codes=tuple(most.tolist()),
        shares=short(np.concatenate(shares)),
    )
