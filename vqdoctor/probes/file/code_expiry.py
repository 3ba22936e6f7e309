"""The EMA counts against the count under which the training replaces a code."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vqdoctor.core.evidence import CodeExpiry, Evidence, Unavailable
from vqdoctor.layouts.live_rows import never_written
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.entropy import Floats
from vqdoctor.probes.file._context import FileContext
from vqdoctor.probes.probe import Probe

_ROUND = 2
"""Decimals of a threshold that somebody typed. An EMA hardly ever lands on such a number."""


def measure(context: FileContext) -> Iterator[Evidence | Unavailable]:
    """Yield, for every layer with EMA counts, which share of its codes is due to be replaced."""
    for view in context.readable(CodeExpiry.kind):
        if isinstance(view, Unavailable):
            yield view
        elif view.counts is None or not np.isfinite(view.counts).all() or never_written(view.counts):
            yield context.gap(CodeExpiry.kind, view, "the layer has no EMA counts that were ever written")
        else:
            yield _expiry(view, view.counts.astype(np.float64), context.saved.record.revival_threshold)


def _expiry(view: QuantizerView, counts: Floats, recorded: float | None) -> CodeExpiry:
    threshold = recorded or _reset_value(view, counts)
    return CodeExpiry(
        layer=view.name,
        source="checkpoint",
        sample_size=len(counts),
        vectors=float(counts.sum()),
        threshold=threshold,
        expired=None if threshold is None else float((counts <= threshold * (1 + 1e-6)).mean()),
    )


def _reset_value(view: QuantizerView, counts: Floats) -> float | None:
    """The round number that several counts share: a revival sets the count of what it replaces to it.

    The start value is such a number too, in codes that were never updated; it is left out.
    """
    values, times = np.unique(counts[counts > 0], return_counts=True)
    typed = (np.round(values, _ROUND) == values) & (times > 1) & (values != (view.start_count or 1.0))
    return float(values[typed][times[typed].argmax()]) if typed.any() else None


PROBE = Probe(kinds=(CodeExpiry,), measure=measure)
