"""Which levels the channels of FSQ, LFQ and their like use, in eval mode, on all splits together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vqdoctor.core.evidence import Evidence, ImplicitLevels, Unavailable
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.probe import Probe


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield the levels in use of every layer without a codebook; the other layers are left out."""
    measured = {}
    for name, (basis, levels) in context.discovered.radixes.items():
        codes = context.all_codes(name)
        if len(codes):
            digits = codes[:, None] // np.array(basis) % np.array(levels)
            edges = (digits == 0) | (digits == np.array(levels) - 1)
            measured[name] = ImplicitLevels(
                source="batch",
                sample_size=len(codes),
                levels=levels,
                used=tuple(len(np.unique(channel)) for channel in digits.T),
                edge_share=tuple(map(float, edges.mean(axis=0))),
                scale=_scale(context, name),
            )
    implicit = {view.name for view in context.views if not view.keys}
    for item in by_layer(context, ImplicitLevels, measured, "its indices do not say how levels make them"):
        if item.layer in implicit:
            yield item


def _scale(context: ModelContext, name: str) -> float | None:
    """Return the root mean square of a layer's z_e; None where it is not seen or not finite."""
    z_e = context.all_z_e(name)
    scale = (
        float(np.sqrt(np.square(z_e, dtype=np.float64).mean())) if z_e is not None and len(z_e) else np.nan
    )
    return scale if np.isfinite(scale) else None


PROBE = Probe(kinds=(ImplicitLevels,), measure=measure, mode="eval", needs_codebook=False)
