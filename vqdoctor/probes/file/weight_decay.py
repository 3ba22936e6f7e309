"""The weight decay of the codebook's parameter group, and what it has done by now."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vqdoctor.core.evidence import Evidence, Unavailable, WeightDecay
from vqdoctor.layouts.live_rows import never_written
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.geometry import row_norms
from vqdoctor.probes.file._context import FileContext
from vqdoctor.probes.probe import Probe
from vqdoctor.saved.placement import codebook_slot
from vqdoctor.saved.weight_decay import lost_length, short_rows


def measure(context: FileContext) -> Iterator[Evidence | Unavailable]:
    """Yield the weight decay of every codebook that an optimizer moves."""
    for view in context.readable(WeightDecay.kind):
        yield view if isinstance(view, Unavailable) else _decay(context, view)


def _decay(context: FileContext, view: QuantizerView) -> WeightDecay | Unavailable:
    if view.counts is not None and not never_written(view.counts):
        return context.gap(WeightDecay.kind, view, "an EMA writes the codebook, whatever an optimizer does")
    slot = codebook_slot(context.saved, view, context.views)
    if slot is None or slot.weight_decay is None:
        return context.gap(WeightDecay.kind, view, "no optimizer in the file is known to hold the codebook")
    # torch passes over a parameter without a gradient, weight decay included; Adam then keeps no state of it
    ungraded = not slot.state and slot.beta2 is not None
    updates = 0 if ungraded else int(slot.steps) or context.saved.record.updates
    known = slot.rate is not None and updates is not None
    return WeightDecay(
        layer=view.name,
        source="checkpoint",
        sample_size=view.num_codes,
        weight_decay=slot.weight_decay,
        learning_rate=slot.rate,
        updates=updates,
        adaptive=slot.adaptive,
        lost=lost_length(
            slot.weight_decay,
            slot.rate or 0.0,
            updates or 0,
            rms=float(np.sqrt(np.mean(np.square(view.codebook, dtype=np.float64)))),
            adaptive=slot.adaptive,
        )
        if known
        else None,
        short_rows=short_rows(row_norms(view.codebook)),
    )


PROBE = Probe(kinds=(WeightDecay,), measure=measure)
