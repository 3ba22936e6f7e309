"""Dumped z_e and the codes in two principal components."""

from __future__ import annotations

import numpy as np

from vqdoctor.core.evidence import PrincipalPlane
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.probes._plane import plane
from vqdoctor.probes.dump._context import DumpContext
from vqdoctor.probes.probe import each_layer


def measure(context: DumpContext, view: QuantizerView) -> PrincipalPlane:
    """Return a layer's z_e and codes in their plane."""
    vectors, dumped = context.vectors(view), context.indices(view)
    chosen = vectors.found.indices if dumped is None else dumped.codes
    usage = np.bincount(chosen, minlength=view.num_codes)
    return plane(view.codebook, usage, source="batch", vectors=vectors.rows, seed=context.seed)


PROBE = each_layer(PrincipalPlane, "batch", measure)
