"""The layers whose usage the evidence does not settle: without it no model is called healthy."""

from __future__ import annotations

from collections.abc import Iterable

from vqdoctor.core.evidence import Evidence, Usage
from vqdoctor.core.finding import Outcome
from vqdoctor.core.report import LayerSummary, Report

COLLAPSE, DEAD = "VQ501", "VQ502"
CAUSES_IN_USE = frozenset({"VQ505", "VQ506", "VQ507"})
"""The checks of the usage that name a cause: a revival that is undone, a level never trained, an encoder
that gives one output. The others of that stage measure its effect."""


def undecided_usage(
    layers: Iterable[LayerSummary], outcomes: Iterable[Outcome], evidence: Iterable[Evidence]
) -> tuple[str, ...]:
    """Return the layers whose usage is unknown, or was not enough for VQ501 or VQ502 to judge.

    A layer without a codebook has no codes that could die, so VQ501 alone judges it. A check that the
    user left out is not missed.
    """
    usages = [item for item in evidence if isinstance(item, Usage)]
    known = {usage.layer for usage in usages}
    implicit = {usage.layer for usage in usages if usage.implicit}
    skipped = {(o.code, o.layer) for o in outcomes if o.status == "skipped"}
    return tuple(
        layer.name
        for layer in layers
        if layer.name not in known
        or (COLLAPSE, layer.name) in skipped
        or ((DEAD, layer.name) in skipped and layer.name not in implicit)
    )


def undecided_layers(report: Report) -> tuple[str, ...]:
    """Return the layers of a report whose usage the evidence does not settle."""
    return undecided_usage(report.layers, report.outcomes, report.evidence)
