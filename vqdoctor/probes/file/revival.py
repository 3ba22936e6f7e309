"""Codes that stand elsewhere than their EMA says, and codes that a revival should have moved but did not."""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.core.evidence import Evidence, Revival, Unavailable
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.probes._ema_rows import ema_rows, stale
from vqdoctor.probes.file._context import FileContext
from vqdoctor.probes.probe import Probe


def measure(context: FileContext) -> Iterator[Evidence | Unavailable]:
    """Yield, for every layer with EMA sums, what they say of a revival."""
    for view in context.readable(Revival.kind):
        yield view if isinstance(view, Unavailable) else _revival(context, view)


def _revival(context: FileContext, view: QuantizerView) -> Revival | Unavailable:
    means = ema_rows(view)
    if means is None or view.counts is None:
        return context.gap(Revival.kind, view, "the layer stores no EMA sums that were ever written")
    away = stale(view, means)
    threshold = context.saved.record.revival_threshold
    # a revival that comes before the update leaves counts at once a little under the threshold
    below = None if not threshold else int(((view.counts < threshold / 2) & ~away).sum())
    return Revival(
        layer=view.name,
        source="checkpoint",
        sample_size=0,
        num_codes=view.num_codes,
        undone=0,
        returned=int(away.sum()),
        threshold=threshold or None,
        under_threshold=below,
    )


PROBE = Probe(kinds=(Revival,), measure=measure)
