"""Codes that still are as a constructor drew them, and that no vector of the data chooses."""

from __future__ import annotations

import numpy as np

from vqdoctor.capture.observe import SPLITS
from vqdoctor.core.evidence import StartRows
from vqdoctor.metrics.start import as_constructed
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import each_layer


def measure(context: ModelContext) -> dict[str, StartRows]:
    """Return how much of every layer's codebook was left as it was drawn."""
    measured = {}
    for name, layer in context.layers.items():
        used = np.zeros(layer.num_codes, dtype=bool)
        for split in SPLITS:
            chosen = context.codes(split).get(name, np.zeros(0, dtype=np.int64))
            used[chosen[chosen >= 0]] = True
        if used.any():
            rows, start = as_constructed(layer.view.codebook, ~used)
            measured[name] = StartRows(
                source="batch",
                sample_size=layer.num_codes,
                rows=int(rows.sum()),
                start=start,
                unused=int((~used).sum()),
                frozen=layer.view.frozen or layer.view.derived,
                by_logits=layer.view.lookup == "logits",
            )
    return measured


PROBE = each_layer(StartRows, measure, "its codes are not seen", mode="eval", by_gradient=False)
