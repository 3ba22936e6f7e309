"""The levels of a residual or grouped stack in a file: which of them were never written."""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.core.evidence import Evidence, LevelUse, Unavailable
from vqdoctor.probes._levels import levels
from vqdoctor.probes.file._context import FileContext
from vqdoctor.probes.probe import Probe


def measure(context: FileContext) -> Iterator[Evidence | Unavailable]:
    """Yield what is known of every level; layers that stand alone have none."""
    found = {item.layer: item for item in levels(context.views, "checkpoint")}
    for view in context.views:
        alone = context.gap(LevelUse.kind, view, "the layer is no level of a stack")
        yield found.get(view.name, alone)


PROBE = Probe(kinds=(LevelUse,), measure=measure)
