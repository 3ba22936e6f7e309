"""Codes that are away from their EMA, and codes that a revival should have moved but did not."""

from __future__ import annotations

from vqdoctor.core.evidence import Revival
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.probes._ema_rows import blurred, ema_rows, stale
from vqdoctor.probes.file._context import FileContext, each_layer
from vqdoctor.probes.probe import Missing


def measure(context: FileContext, view: QuantizerView) -> Revival:
    """Return the traces of a revival in a layer's EMA sums."""
    means = ema_rows(view)
    if means is None or view.counts is None:
        raise Missing("the layer stores no EMA sums that were ever written")
    if view.derived:
        raise Missing("its codes are computed from the sums and counts")
    if blurred(view):
        raise Missing(
            "every code in use lies near its own mean and hardly any on it, as averages of weights do: what "
            "was moved by hand cannot be told"
        )
    away = stale(view, means)
    threshold = context.saved.record.revival_threshold
    # a revival that comes before the update leaves counts at once a little under the threshold
    below = None if not threshold else int(((view.counts < threshold / 2) & ~away).sum())
    return Revival(
        source="checkpoint",
        sample_size=0,
        num_codes=view.num_codes,
        undone=0,
        returned=int(away.sum()),
        threshold=threshold or None,
        under_threshold=below,
    )


PROBE = each_layer(Revival, measure)
