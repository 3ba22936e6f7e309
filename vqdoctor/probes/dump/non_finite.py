"""NaN and infinity in the dumped z_e: an encoder that has blown up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vqdoctor.core.evidence import Evidence, NonFinite, Unavailable
from vqdoctor.probes.dump._context import DumpContext, Missing
from vqdoctor.probes.probe import Probe


def measure(context: DumpContext) -> Iterator[Evidence | Unavailable]:
    """Yield what is not finite, and nothing where all is: what the file says then stands."""
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
