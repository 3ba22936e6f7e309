"""NaN and infinity in the dumped z_e: an encoder that has blown up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vqdoctor.core.evidence import Evidence, NonFinite, Unavailable
from vqdoctor.probes.dump._context import DumpContext
from vqdoctor.probes.probe import Missing, Probe


def measure(context: DumpContext) -> Iterator[Evidence | Unavailable]:
    """Yield the layers whose z_e is not finite; for the others the evidence of the file is the last word."""
    for view in context.views:
        try:
            values, _ = context.raw_rows(view)
        except Missing:
            continue
        nan, inf = int(np.isnan(values).sum()), int(np.isinf(values).sum())
        if nan or inf:
            yield NonFinite(
                layer=view.name,
                source="batch",
                sample_size=values.size,
                tensors=(context.z_e_key(view),),
                tensor_count=1,
                nan=nan,
                inf=inf,
            )


PROBE = Probe(kinds=(NonFinite,), measure=measure)
