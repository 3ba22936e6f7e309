"""How the codes stand to the means that their EMA sums and counts give: the form of it names the rule."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vqdoctor.core.evidence import EmaRelation, Evidence, Unavailable
from vqdoctor.layouts.live_rows import never_written
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.ema_relation import ema_relation
from vqdoctor.probes.file._context import FileContext
from vqdoctor.probes.probe import Probe


def measure(context: FileContext) -> Iterator[Evidence | Unavailable]:
    """Yield the relation of every layer with EMA sums and counts."""
    for view in context.readable(EmaRelation.kind):
        yield view if isinstance(view, Unavailable) else _relation(context, view)


def _relation(context: FileContext, view: QuantizerView) -> EmaRelation | Unavailable:
    if view.counts is None or view.sums is None or never_written(view.counts):
        return context.gap(EmaRelation.kind, view, "the layer stores no EMA sums that were ever written")
    if bool((view.counts == np.round(view.counts)).all()):
        # encodec's k-means writes sums without the counts, which the first update mends
        return context.gap(EmaRelation.kind, view, "its counts are whole numbers: no EMA update was made yet")
    if view.derived:
        return context.gap(EmaRelation.kind, view, "its codes are computed from the sums and counts")
    found = ema_relation(view.codebook, view.counts, view.sums)
    if found is None:
        return context.gap(
            EmaRelation.kind, view, "the count of every code is so small that smoothing decides"
        )
    return EmaRelation(
        layer=view.name,
        source="checkpoint",
        sample_size=int(found.compared.sum()),
        total=float(np.nansum(view.counts.astype(np.float64))),
        scale=found.scale,
        scale_spread=found.scale_spread,
        cosine=found.cosine,
        count_power=found.count_power,
        sum_scale=found.sum_scale,
        code_norm=found.code_norm,
        code_norm_spread=found.code_norm_spread,
        mean_norm=found.mean_norm,
        lookup=view.lookup or "",
    )


PROBE = Probe(kinds=(EmaRelation,), measure=measure)
