"""Codes that were never chosen since they were first set, by the EMA's counts or the optimizer's memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqdoctor.core.evidence import UnmovedRows
from vqdoctor.layouts.live_rows import never_written
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.geometry import Mask, spread
from vqdoctor.metrics.start import structure
from vqdoctor.probes.file._context import FileContext, each_layer
from vqdoctor.probes.file.optimizer_memory import untouched_rows
from vqdoctor.probes.probe import Missing
from vqdoctor.saved.placement import codebook_slot

_LEAST_COUNT = 1e-30
"""Smaller counts have lost digits, and so have their sums: float32 ends at 1e-38."""
_FORGOTTEN = 80_000
"""Updates after which Adam, with beta2 0.999, no longer remembers a gradient."""

Start = NDArray[np.float32]


def measure(context: FileContext, view: QuantizerView) -> UnmovedRows:
    """Return how many codes were never chosen, and how the places where they began lie."""
    told_by = "optimizer" if view.counts is None else "counts"
    rows, start = _by_optimizer(context, view) if view.counts is None else _by_counts(view)
    others = view.codebook[~rows]
    size = spread(others if len(others) > 1 else start)
    offset = None
    if rows.any() and len(others) and size > 0:
        apart = start.mean(axis=0, dtype=np.float64) - others.mean(axis=0, dtype=np.float64)
        offset = float(np.linalg.norm(apart)) / size
    return UnmovedRows(
        source="checkpoint",
        sample_size=view.num_codes,
        rows=int(rows.sum()),
        told_by=told_by,
        structure=structure(start) if rows.any() else 0.0,
        offset=offset,
        frozen=view.frozen or view.derived,
        count=float(view.counts.min()) if view.counts is not None and rows.any() else None,
    )


def _by_counts(view: QuantizerView) -> tuple[Mask, Start]:
    """Return the rows [K] that share the least count, and their sums over it [n, D]."""
    counts, sums = view.counts, view.sums
    if counts is None or sums is None or not (np.isfinite(counts).all() and np.isfinite(sums).all()):
        raise Missing("the layer stores no finite EMA counts and sums")
    if never_written(counts):
        raise Missing("the EMA counts were never written")
    least = counts.min()
    rows = np.asarray(counts == least)
    if rows.sum() < 2 or least < _LEAST_COUNT:
        rows = np.zeros_like(rows)
    return rows, np.asarray(sums[rows] / max(least, np.float32(_LEAST_COUNT)), dtype=np.float32)


def _by_optimizer(context: FileContext, view: QuantizerView) -> tuple[Mask, Start]:
    """Return the rows [K] without a gradient, and the rows themselves [n, D]."""
    slot = codebook_slot(context.saved, view, context.views)
    untouched = None if slot is None or not slot.adam else untouched_rows(slot, view)
    if slot is None or untouched is None:
        raise Missing("neither EMA counts nor an optimizer's memory of each code")
    if slot.weight_decay or not 0 < slot.steps < _FORGOTTEN:
        raise Missing("weight decay moves the codes too, or the optimizer has forgotten early gradients")
    return untouched, view.codebook[untouched]


PROBE = each_layer(UnmovedRows, measure)
