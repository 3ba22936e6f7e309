"""The shape and range of the dumped z_e, as it was saved."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vqdoctor.core.evidence import Evidence, InputSummary, Unavailable
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.probes._input import summarise
from vqdoctor.probes.dump._context import DumpContext, Missing
from vqdoctor.probes.probe import Probe


def measure(context: DumpContext) -> Iterator[Evidence | Unavailable]:
    """Yield a summary of each layer's z_e."""
    for view in context.views:
        try:
            yield _summary(context, view)
        except Missing as missing:
            yield context.gap(InputSummary.kind, view, missing)


def _summary(context: DumpContext, view: QuantizerView) -> InputSummary:
    array = context.arrays[context.z_e_key(view)]
    values, _ = context.raw_rows(view)
    if not np.isfinite(values).all():
        raise Missing("z_e has non-finite values")
    return summarise("z_e", array, values, context.arrays.get("y"), view.name)


PROBE = Probe(kinds=(InputSummary,), measure=measure)
