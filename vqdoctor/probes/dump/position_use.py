"""Which codes a dump has at which positions of its samples."""

from __future__ import annotations

import numpy as np

from vqdoctor.core.evidence import PositionUse
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.probes._positions import position_use
from vqdoctor.probes.dump._context import DumpContext, Indices
from vqdoctor.probes.probe import Missing, each_layer


def measure(context: DumpContext, view: QuantizerView) -> PositionUse:
    """Return a layer's use by position, of samples that have equally many positions."""
    chosen = context.indices(view)
    if chosen is None:
        vectors = context.vectors(view)
        chosen = Indices(codes=vectors.found.indices, groups=vectors.groups)
    lengths = np.zeros(0) if chosen.groups is None else np.unique(chosen.groups, return_counts=True)[1]
    if not len(lengths) or lengths[0] < 2 or (lengths != lengths[0]).any():
        raise Missing(
            "the batch does not show which position each vector comes from", "dump it as [samples, …]"
        )
    return position_use(chosen.codes.reshape(len(lengths), -1))


PROBE = each_layer(PositionUse, "batch", measure)
