"""Whether the codebook was ever initialised and trained, by the traces in the file."""

from __future__ import annotations

import numpy as np

from vqdoctor.core.evidence import Initialisation
from vqdoctor.layouts.live_rows import never_written
from vqdoctor.layouts.view import Array, QuantizerView
from vqdoctor.probes.file._context import FileContext, each_layer

_DIMS = 64
"""Dimensions that are correlated with each other, at most; more only take more time."""


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
        structure=_structure(view.codebook),
        frozen=view.frozen,
    )


def _structure(codebook: Array) -> float:
    """Return how far the rows' dimensions correlate beyond chance, in standard deviations.

    Of K rows of independent noise, the squared correlation of two dimensions has mean 1/(K - 1) and
    variance about 2/(K - 1)^2.
    """
    rows = codebook[:, :_DIMS].astype(np.float64)
    rows = rows[:, rows.std(axis=0) > 0]
    dims = rows.shape[1]
    if dims < 2:
        return 0.0
    squares = np.atleast_2d(np.corrcoef(rows, rowvar=False))[np.triu_indices(dims, 1)] ** 2 * (len(rows) - 1)
    return float((squares - 1).sum() / np.sqrt(2 * len(squares)))


PROBE = each_layer(Initialisation, measure)
