"""The shape and range of the dumped z_e, as it was saved."""

from __future__ import annotations

import numpy as np

from vqdoctor.core.evidence import InputSummary
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.probes._input import summarise
from vqdoctor.probes.dump._context import DumpContext
from vqdoctor.probes.probe import Missing, each_layer


def measure(context: DumpContext, view: QuantizerView) -> InputSummary:
    """Return a summary of a layer's z_e."""
    array = context.arrays[context.z_e_key(view)]
    values, _ = context.raw_rows(view)
    if not np.isfinite(values).all():
        raise Missing("z_e has non-finite values")
    return summarise("z_e", array, values, context.arrays.get("y"))


PROBE = each_layer(InputSummary, "batch", measure)
