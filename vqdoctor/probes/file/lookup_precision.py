"""A codebook stored in half precision: can a lookup in that precision still tell its codes apart?"""

from __future__ import annotations

import numpy as np

from vqdoctor.core.evidence import LookupPrecision
from vqdoctor.layouts.live_rows import live_mask
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.probes.file._context import FileContext, each_layer

ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Largest relative rounding error of a value: 11 and 8 bits of mantissa."""
_ROWS = 1024
"""Rows whose neighbours are looked for; the count is scaled up to all rows."""
_PAIRS = 1 << 24
"""Pairs of rows that are compared at the most: fewer rows are asked of a table of more than 16,384."""
_AT_A_TIME = 1 << 20
"""Distances in memory: 8 MiB."""


def measure(context: FileContext, view: QuantizerView) -> LookupPrecision:
    """Return the precision of a stored codebook."""
    dtype = context.stored_dtype(view)
    rounding = ROUNDING.get(dtype)
    return LookupPrecision(
        source="checkpoint",
        sample_size=view.num_codes,
        dtype=dtype,
        blurred_rows=0 if rounding is None or view.derived else _blurred(view, rounding, context.seed),
    )


def _blurred(view: QuantizerView, rounding: float, seed: int) -> int:
    """Count the codes that another one is nearer to than the rounding of |z|^2 - 2 z e + |e|^2 can tell.

    Exact duplicates are left out: no precision tells those apart.
    """
    live = view.codebook[live_mask(view)[2]].astype(np.float64)
    rows = np.unique(live, axis=0, return_counts=True)[0]  # without the counts it loads numpy.ma
    if len(rows) < 2:
        return 0
    most = max(1, min(_ROWS, _PAIRS // len(rows)))
    asked = np.random.default_rng(seed).permutation(len(rows))[:most]
    squares = np.square(rows).sum(axis=1)
    # around the mean, so that float64 has digits to spare
    centred = rows - rows.mean(axis=0)
    own = np.square(centred).sum(axis=1)
    blurred, step = 0, max(1, _AT_A_TIME // len(rows))
    for at in range(0, len(asked), step):
        some = asked[at : at + step]
        apart = own[some, None] + own[None, :] - 2 * centred[some] @ centred.T
        apart[np.arange(len(some)), some] = np.inf
        blurred += int(np.sum(apart.min(axis=1) < rounding * squares[some]))
    return round(blurred / len(asked) * len(rows))


PROBE = each_layer(LookupPrecision, measure)
