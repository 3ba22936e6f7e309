"""The levels of a stack at work: the share of the input that the earlier levels leave to each."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from vqdoctor.core.evidence import Evidence, LevelUse, Unavailable
from vqdoctor.layouts.stacks import stacks
from vqdoctor.metrics.entropy import plug_in_entropy
from vqdoctor.metrics.geometry import spread
from vqdoctor.probes._levels import ALONE, levels
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.probe import Missing, Probe


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield the use of every level, with the spread of its input relative to the first level's."""
    first = {view.name: stack[0].name for stack in stacks(context.views) for view in stack}
    spreads = {
        name: spread(z_e) for name in {*first, *first.values()} if (z_e := context.all_z_e(name)) is not None
    }
    perplexities = {
        name: math.exp(plug_in_entropy(np.bincount(codes)))
        for name in set(first.values())
        if (codes := context.all_codes(name)).size
    }
    found = {item.layer: item for item in levels(context.views, "batch")}
    for view in context.views:
        item = found.get(view.name)
        if item is None:
            yield Missing(ALONE).gap(LevelUse, view.name, "batch")
            continue
        top = first[view.name]
        own, whole = spreads.get(view.name), spreads.get(top)
        left = own / whole if own is not None and whole else None
        yield item.replace(left=left, first_perplexity=perplexities.get(top))


PROBE = Probe(kinds=(LevelUse,), measure=measure, mode="eval")
