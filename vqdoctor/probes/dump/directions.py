"""In how many directions dumped z_e, and the codes that it chooses, vary."""

from __future__ import annotations

import numpy as np

from vqdoctor.core.evidence import Directions
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.probes._directions import directions
from vqdoctor.probes.dump._context import DumpContext
from vqdoctor.probes.probe import each_layer


def measure(context: DumpContext, view: QuantizerView) -> Directions:
    """Return the directions of a layer's z_e and of the nearest codes, or of the dumped ones."""
    vectors, dumped = context.vectors(view), context.indices(view)
    chosen = vectors.found.indices if dumped is None else dumped.codes
    usage = np.bincount(chosen, minlength=view.num_codes)
    return directions(view.codebook, usage, source="batch", vectors=vectors.rows)


PROBE = each_layer(Directions, "batch", measure)
