"""From a codebook, the use of its codes, and z_e to `Directions`: for a file, a dump and a model alike."""

from __future__ import annotations

import numpy as np

from vqdoctor.core.evidence import Directions, Source
from vqdoctor.metrics.entropy import Floats, Ints
from vqdoctor.metrics.geometry import FELT, Rows, rank_of, variance_shares

MOST = 0.99
"""Share of the variance that published counts of directions go by."""


def directions(
    codebook: Rows,
    usage: Floats | Ints,
    *,
    source: Source,
    vectors: Rows | None = None,
    input_directions: int | None = None,
) -> Directions:
    """Return in how many directions the codes in use and the vectors vary.

    Args:
        codebook: finite codes, [K, D].
        usage: how often each is chosen, [K].
        source: where the usage was seen.
        vectors: finite z_e, [N, D].
        input_directions: of the part of the input that one vector depends on.
    """
    shares = variance_shares(codebook, usage)
    of_codes = Directions(
        source=source,
        sample_size=int(np.count_nonzero(usage > 0)),
        dim=codebook.shape[1],
        code_directions=felt(shares),
        code_directions_99=_holding_most(shares),
        code_rank=rank_of(shares),
        input_directions=input_directions,
    )
    if vectors is None:
        return of_codes
    shares = variance_shares(vectors)
    return of_codes.replace(
        vectors=len(vectors),
        vector_directions=felt(shares),
        vector_directions_99=_holding_most(shares),
        vector_rank=rank_of(shares),
    )


def felt(shares: Floats) -> int:
    """Return how many directions hold enough of the variance to count."""
    return int(np.sum(shares > FELT))


def _holding_most(shares: Floats) -> int:
    return int(np.sum(np.cumsum(shares) < MOST)) + 1 if len(shares) else 0
