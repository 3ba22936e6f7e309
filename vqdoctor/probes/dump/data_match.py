"""Dumped z_e against the codebook."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from vqdoctor.core.evidence import DataMatch, Evidence, Unavailable
from vqdoctor.metrics.match import match
from vqdoctor.probes.dump._context import DumpContext, Missing
from vqdoctor.probes.probe import Probe


def measure(context: DumpContext) -> Iterator[Evidence | Unavailable]:
    """Yield how each layer's codebook lies to its z_e."""
    for view in context.views:
        try:
            vectors = context.vectors(view)
            numbers = match(vectors.rows, view.codebook, vectors.found)
            if numbers is None:
                raise Missing("all z_e are equal, or the codebook is all zero")
        except Missing as missing:
            yield context.gap(DataMatch.kind, view, missing)
            continue
        yield DataMatch(layer=view.name, source="batch", sample_size=len(vectors.rows), **asdict(numbers))


PROBE = Probe(kinds=(DataMatch,), measure=measure)
