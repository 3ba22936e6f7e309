"""In how many directions the codes vary that the EMA counts say are in use."""

from __future__ import annotations

from vqdoctor.core.evidence import Directions
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.probes._directions import directions
from vqdoctor.probes.file._context import FileContext, each_layer
from vqdoctor.probes.file.usage import votes


def measure(context: FileContext, view: QuantizerView) -> Directions:
    """Return the directions of a layer's codes, each weighted by its count."""
    return directions(view.codebook, votes(context, view), source="checkpoint")


PROBE = each_layer(Directions, measure)
