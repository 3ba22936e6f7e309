"""Whether the codebook was ever initialised and trained, by the traces in the file."""

from __future__ import annotations

import numpy as np

from vqdoctor.core.evidence import Initialisation
from vqdoctor.layouts.live_rows import never_written
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.start import structure
from vqdoctor.probes.file._context import FileContext, each_layer


def measure(context: FileContext, view: QuantizerView) -> Initialisation:
    """Return how a layer's codebook was started."""
    slots = context.saved.slots
    # an optimizer without any state took no step: that is certain of Adam's kin only
    idle = bool(slots) and all(slot.beta2 is not None for slot in slots)
    return Initialisation(
        source="checkpoint",
        sample_size=len(view.codebook),
        identical_rows=int(np.sum((view.codebook == view.codebook[0]).all(axis=1))),
        zero_rows=int(np.sum(~view.codebook.any(axis=1))),
        flag=view.initted,
        counts_written=None if view.counts is None else not never_written(view.counts),
        stepped=True if any(slot.state for slot in slots) else False if idle else None,
        updates=context.saved.record.updates,
        structure=structure(view.codebook),
        frozen=view.frozen,
    )


PROBE = each_layer(Initialisation, measure)
