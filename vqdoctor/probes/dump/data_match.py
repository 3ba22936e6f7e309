"""Dumped z_e against the codebook."""

from __future__ import annotations

from dataclasses import asdict

from vqdoctor.core.evidence import DataMatch
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.match import match
from vqdoctor.probes.dump._context import DumpContext
from vqdoctor.probes.probe import Missing, each_layer


def measure(context: DumpContext, view: QuantizerView) -> DataMatch:
    """Return how a layer's codebook lies to its z_e."""
    vectors = context.vectors(view)
    numbers = match(vectors.rows, view.codebook, vectors.found)
    if numbers is None:
        raise Missing("all z_e are equal, or the codebook is all zero")
    return DataMatch(source="batch", sample_size=len(vectors.rows), **asdict(numbers))


PROBE = each_layer(DataMatch, "batch", measure)
