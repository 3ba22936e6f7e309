"""Which codes the model chooses at which positions, in eval mode, on all splits together."""

from __future__ import annotations

import numpy as np

from vqdoctor.core.evidence import PositionUse
from vqdoctor.probes._positions import position_use
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import each_layer


def measure(context: ModelContext) -> dict[str, PositionUse]:
    """Return the use by position of every layer that has several positions."""
    measured = {}
    for view in context.views:
        name = view.name
        parts = [codes[name] for split in context.own_splits if name in (codes := context.codes(split))]
        if parts and parts[0].shape[1] > 1 and len({part.shape[1] for part in parts}) == 1:
            together = np.concatenate(parts)
            grids = {layers[name].grid for layers in context.seen.values() if name in layers}
            if (together >= 0).any():
                measured[name] = position_use(together, grids.pop() if len(grids) == 1 else ())
    return measured


WHY_NOT = "the layer's codes are not seen, or a sample has one position"
PROBE = each_layer(PositionUse, measure, WHY_NOT, mode="eval", by_gradient=False, needs_codebook=False)
