"""The weight decay of the codebook's parameter group, and what it has done by now."""

from __future__ import annotations

from vqdoctor.core.evidence import WeightDecay
from vqdoctor.layouts.live_rows import never_written
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.geometry import root_mean_square, row_norms
from vqdoctor.probes.file._context import FileContext, each_layer
from vqdoctor.probes.probe import Missing
from vqdoctor.saved.placement import codebook_slot
from vqdoctor.saved.weight_decay import EXEMPT, lost_length, short_rows


def measure(context: FileContext, view: QuantizerView) -> WeightDecay:
    """Return the weight decay of a codebook that an optimizer moves."""
    if view.counts is not None and not never_written(view.counts):
        raise Missing("an EMA writes the codebook, whatever an optimizer does")
    if context.saved.record.exempt_codebook:
        raise Missing(EXEMPT)
    slot = codebook_slot(context.saved, view, context.views)
    if slot is None or slot.weight_decay is None:
        raise Missing("no optimizer in the file is known to hold the codebook")
    # torch passes over a parameter without a gradient, weight decay included; Adam then keeps no state of it
    ungraded = not slot.state and slot.beta2 is not None
    updates = 0 if ungraded else int(slot.steps) or context.saved.record.updates
    rms = root_mean_square(view.codebook)
    lost = None
    if slot.rate is not None and updates is not None:
        lost = lost_length(slot.weight_decay, slot.rate, updates, rms=rms, adaptive=slot.adaptive)
    reach = None
    if slot.beta2 is not None and slot.highest_rate is not None and updates:
        reach = slot.highest_rate * updates
    return WeightDecay(
        source="checkpoint",
        sample_size=view.num_codes,
        weight_decay=slot.weight_decay,
        learning_rate=slot.rate,
        updates=updates,
        adaptive=slot.adaptive,
        lost=lost,
        short_rows=short_rows(row_norms(view.codebook)),
        reach=reach,
    )


PROBE = each_layer(WeightDecay, measure)
