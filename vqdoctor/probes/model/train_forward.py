"""What train-mode forward passes alone do to a codebook that was just loaded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from vqdoctor.core.evidence import Evidence, TrainForward, Unavailable
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._forwards import Pass, passes
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.probe import Probe


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield how far the codes in use move in the first pass, and in those after it."""
    seen: dict[str, list[Pass]] = defaultdict(list)
    for view, one in passes(context):
        seen[view.name].append(one)
    measured = {name: _evidence(name, parts) for name, parts in seen.items() if len(parts) > 1}
    yield from by_layer(context, TrainForward, measured)


def _evidence(name: str, parts: list[Pass]) -> TrainForward:
    first, *later = [float(np.median(one.travelled[one.in_use])) for one in parts]
    written = [one.counts_moved for one in parts if one.counts_moved is not None]
    return TrainForward(
        layer=name,
        source="batch",
        sample_size=len(parts),
        first_moved=first,
        later_moved=max(later),
        writes_counts=any(written) if written else None,
    )


PROBE = Probe(kinds=(TrainForward,), measure=measure, mode="train")
