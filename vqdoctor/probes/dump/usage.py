"""Usage from dumped indices, or from dumped z_e and its nearest codes."""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.core.evidence import Evidence, Unavailable, Usage
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.probes._usage import usage_from_indices
from vqdoctor.probes.dump._context import DumpContext, Indices, Missing
from vqdoctor.probes.probe import Probe


def measure(context: DumpContext) -> Iterator[Evidence | Unavailable]:
    """Yield each layer's usage."""
    for view in context.views:
        try:
            chosen = _chosen(context, view)
        except Missing as missing:
            yield context.gap(Usage.kind, view, missing)
            continue
        yield usage_from_indices(
            chosen.codes,
            view.num_codes,
            layer=view.name,
            groups=chosen.groups,
            histogram=context.histogram,
            seed=context.seed,
        )


def _chosen(context: DumpContext, view: QuantizerView) -> Indices:
    """The indices as dumped, which know of any other rule of choice; else the nearest codes."""
    if (dumped := context.indices(view)) is not None:
        return dumped
    vectors = context.vectors(view)
    return Indices(codes=vectors.found.indices, groups=vectors.groups)


PROBE = Probe(kinds=(Usage,), measure=measure)
