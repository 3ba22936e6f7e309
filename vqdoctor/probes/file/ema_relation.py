"""The relation of the codes to the means that their EMA sums and counts give; its form names the rule."""

from __future__ import annotations

import numpy as np

from vqdoctor.core.evidence import EmaRelation
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.ema_relation import ema_relation
from vqdoctor.probes._ema_rows import written_counts
from vqdoctor.probes.file._context import FileContext, each_layer
from vqdoctor.probes.probe import Missing


def measure(_: FileContext, view: QuantizerView) -> EmaRelation:
    """Return the relation of a layer's codes to its EMA sums and counts."""
    counts = written_counts(view)
    if counts is None or view.counts is None or view.sums is None:
        raise Missing("the layer stores no EMA sums that were ever written")
    if bool((counts == np.round(counts)).all()):
        # encodec's k-means writes sums without the counts, which the first update mends
        raise Missing("its counts are whole numbers: no EMA update was made yet")
    if view.derived:
        raise Missing("its codes are computed from the sums and counts")
    found = ema_relation(view.codebook, view.counts, view.sums)
    if found is None:
        raise Missing("the count of every code is so small that smoothing decides")
    return EmaRelation(
        source="checkpoint",
        sample_size=int(found.compared.sum()),
        total=float(np.nansum(counts)),
        scale=found.scale,
        scale_spread=found.scale_spread,
        cosine=found.cosine,
        count_power=found.count_power,
        sum_scale=found.sum_scale,
        divisor=found.divisor,
        added=found.added,
        code_norm=found.code_norm,
        code_norm_spread=found.code_norm_spread,
        mean_norm=found.mean_norm,
        lookup=view.lookup or "",
    )


PROBE = each_layer(EmaRelation, measure)
