"""The levels of a residual or grouped stack in a file: which of them were never written."""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.core.evidence import Evidence, LevelUse, Unavailable
from vqdoctor.probes._levels import ALONE, levels
from vqdoctor.probes.file._context import FileContext
from vqdoctor.probes.probe import Missing, Probe


def measure(context: FileContext) -> Iterator[Evidence | Unavailable]:
    """Yield the use of every level; a layer by itself is not a level."""
    found = {item.layer: item for item in levels(context.views, "checkpoint")}
    for view in context.views:
        yield found.get(view.name) or Missing(ALONE).gap(LevelUse, view.name, "checkpoint")


PROBE = Probe(kinds=(LevelUse,), measure=measure)
