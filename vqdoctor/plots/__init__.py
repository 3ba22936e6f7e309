"""Pictures, drawn with matplotlib from a report's plain values alone: one kind is one file."""

from __future__ import annotations

import sys
from functools import cache

from vqdoctor.core.discovery import pieces
from vqdoctor.core.picture import Picture
from vqdoctor.core.report import Report
from vqdoctor.plots._comparison import comparison_pictures
from vqdoctor.plots._plot import Plot

__all__ = ["MOST_LAYERS", "Plot", "all_plots", "comparison_pictures", "pictures"]

MOST_LAYERS = 8
"""Layers that have pictures of their own; of more, those with the first findings, then the first."""


@cache
def all_plots() -> tuple[Plot, ...]:
    """Return every kind of picture in the order in which they are shown."""
    return tuple(sorted(pieces(sys.modules[__name__], "PLOT", Plot), key=lambda plot: plot.place))


def pictures(report: Report, *, png: bool = False) -> tuple[Picture, ...]:
    """Return the pictures for which the report has evidence: of the model, then layer by layer.

    Without matplotlib they are tables alone, and say so.
    """
    names = [layer.name for layer in report.layers]
    ranked = [finding.layer for finding in report.findings if finding.layer in names]
    shown = [*dict.fromkeys([*filter(None, ranked), *names])][:MOST_LAYERS]
    places = [None, *(name for name in names if name in shown)]
    return tuple(
        picture
        for layer in places
        for plot in all_plots()
        if plot.of_model == (layer is None)
        for picture in plot.pictures(report, layer, png=png)
    )
