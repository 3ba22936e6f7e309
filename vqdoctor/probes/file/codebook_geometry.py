"""The codebook's rows as points: norms, zero and blown-up rows, duplicates, effective rank."""

from __future__ import annotations

import numpy as np

from vqdoctor.core.evidence import CodebookGeometry
from vqdoctor.layouts.live_rows import chosen_lately, is_unit, live_mask
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.geometry import (
    COPY,
    OVERSIZE,
    ZERO_SHARE,
    Rows,
    copies,
    effective_rank,
    faded_rows,
    init_box_rows,
    middle,
    root_mean_square,
    spread,
)
from vqdoctor.probes.file._context import FileContext, each_layer

FADED = 0.1
"""A code that was not chosen lately and is shorter than this share of the others is on its way to zero: the
smoothing of the counts takes it there along its own direction, and near zero all of them look alike."""


def measure(context: FileContext, view: QuantizerView) -> CodebookGeometry:
    """Return a layer's geometry; duplicates, spread and rank are those of the live rows."""
    rows = view.codebook
    norms, median, live = live_mask(view)
    alive = rows if live.all() else rows[live]
    faded = faded_rows(alive)
    if (chosen := chosen_lately(view.counts)) is not None:
        faded |= ~chosen[live] & (norms[live] < FADED * median)
    lasting = alive[~faded] if faded.any() else alive  # a copy of a large table is as large
    tolerance = COPY * spread(alive) if len(lasting) else 0.0
    later = copies(lasting, tolerance, context.seed)
    unused = None if chosen is None else ~chosen[live][~faded]
    if (
        unused is not None and later.any()
    ):  # from the other end, the last of equal rows is the one that is kept
        unused &= later | copies(lasting[::-1], tolerance, context.seed)[::-1]
    return CodebookGeometry(
        source="checkpoint",
        sample_size=len(rows),
        dim=rows.shape[1],
        dtype=context.stored_dtype(view),
        rms=root_mean_square(rows),
        norm_min=float(norms.min()),
        norm_median=middle(norms),
        norm_max=float(norms.max()),
        mean_norm=float(np.linalg.norm(rows.mean(axis=0, dtype=np.float64))),
        zero_rows=int(np.sum((norms == 0) | (norms < ZERO_SHARE * median))),
        oversized_rows=int(np.sum(norms > OVERSIZE * median)) if median > 0 else 0,
        duplicate_rows=int(later.sum()),
        most_copied=_most_copied(lasting[later], context.seed),
        unused_copies=None if unused is None else int(unused.sum()) if later.any() else 0,
        effective_rank=effective_rank(alive) if live.any() else 0.0,
        init_box_rows=init_box_rows(rows),
        unit_rows=is_unit(norms, live),
    )


def _most_copied(copied: Rows, seed: int) -> int:
    """Return how many rows equal each other at most, where `copied` [N, D] are all but the first of them."""
    if not len(copied):
        return 0
    axis = np.random.default_rng(seed).standard_normal(copied.shape[1])
    return int(np.unique(copied @ axis, return_counts=True)[1].max()) + 1


PROBE = each_layer(CodebookGeometry, measure)
