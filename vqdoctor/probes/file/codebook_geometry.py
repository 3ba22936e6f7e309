"""The codebook's rows as points: norms, zero and blown-up rows, duplicates, effective rank."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vqdoctor.core.evidence import CodebookGeometry, Evidence, Unavailable
from vqdoctor.layouts.live_rows import is_unit, live_mask
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.geometry import (
    COPY,
    OVERSIZE,
    ZERO_SHARE,
    duplicate_rows,
    effective_rank,
    faded_rows,
    init_box_rows,
    middle,
    spread,
)
from vqdoctor.probes.file._context import FileContext
from vqdoctor.probes.probe import Probe


def measure(context: FileContext) -> Iterator[Evidence | Unavailable]:
    """Yield each layer's geometry; duplicates, spread and rank are those of the live rows."""
    for view in context.readable(CodebookGeometry.kind):
        yield view if isinstance(view, Unavailable) else _geometry(context, view)


def _geometry(context: FileContext, view: QuantizerView) -> CodebookGeometry:
    rows = view.codebook
    norms, median, live = live_mask(view)
    alive = rows[live]
    standing = alive[~faded_rows(alive)]
    stored = context.checkpoint.tensors.get(view.keys.get("codebook", ""))
    return CodebookGeometry(
        layer=view.name,
        source="checkpoint",
        sample_size=len(rows),
        dim=rows.shape[1],
        dtype=stored.dtype if stored is not None else str(rows.dtype),
        rms=float(np.sqrt(np.mean(np.square(rows, dtype=np.float64)))),
        norm_min=float(norms.min()),
        norm_median=middle(norms),
        norm_max=float(norms.max()),
        mean_norm=float(np.linalg.norm(rows.mean(axis=0, dtype=np.float64))),
        zero_rows=int(np.sum((norms == 0) | (norms < ZERO_SHARE * median))),
        oversized_rows=int(np.sum(norms > OVERSIZE * median)) if median > 0 else 0,
        duplicate_rows=duplicate_rows(standing, COPY * spread(alive), context.seed) if len(standing) else 0,
        effective_rank=effective_rank(alive) if live.any() else 0.0,
        init_box_rows=init_box_rows(rows),
        unit_rows=is_unit(norms, live),
    )


PROBE = Probe(kinds=(CodebookGeometry,), measure=measure)
