"""Usage from dumped indices, or from dumped z_e and its nearest codes."""

from __future__ import annotations

from vqdoctor.core.evidence import Usage
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.probes._usage import usage_from_indices
from vqdoctor.probes.dump._context import DumpContext, Indices
from vqdoctor.probes.probe import each_layer


def measure(context: DumpContext, view: QuantizerView) -> Usage:
    """Return a layer's usage by its dumped indices, whatever rule chose them; else by the nearest codes."""
    chosen = context.indices(view)
    if chosen is None:
        vectors = context.vectors(view)
        chosen = Indices(codes=vectors.found.indices, groups=vectors.groups)
    return usage_from_indices(
        chosen.codes,
        view.num_codes,
        layer=view.name,
        groups=chosen.groups,
        histogram=context.histogram,
        seed=context.seed,
    )


PROBE = each_layer(Usage, "batch", measure)
