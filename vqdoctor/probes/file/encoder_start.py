"""The weights before and after the first VQ layer of a file: are they as a constructor drew them?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from vqdoctor.core.evidence import EncoderStart, Evidence, Unavailable
from vqdoctor.metrics.start import LEAST_ENTRIES, is_drawn
from vqdoctor.probes.file._context import FileContext
from vqdoctor.probes.probe import Missing, Probe
from vqdoctor.saved.placement import Entry, Unplaced, entries_of, placed_slots

_SAMPLE = 1 << 12
"""Numbers of a matrix that are read."""


def measure(context: FileContext) -> Iterator[Evidence | Unavailable]:
    """Yield how much of the weights before and after the first layer was never trained."""
    if not context.views:
        return
    try:
        yield _evidence(context)
    except (Missing, Unplaced) as reason:
        yield Missing(str(reason)).gap(EncoderStart, None, "checkpoint")


def _evidence(context: FileContext) -> EncoderStart:
    if all(view.frozen for view in context.views):
        raise Missing(
            "the layers' tables may rightly stay as they were drawn, and so may what is before them"
        )
    if not context.saved.in_order:
        raise Missing(
            "the file does not keep the model's order, so the parameters before the VQ layer are unknown"
        )
    view = context.views[0]
    entries = entries_of(context.saved, view, context.views)
    before, after = ([e for e in entries if e.part == part] for part in ("before", "after"))
    judged = [_drawn(context, part) for part in (before, after)]
    if not all(sum(sizes.values()) for sizes in judged):
        raise Missing(f"no weight matrix of {LEAST_ENTRIES} numbers is both before and after the VQ layer")
    (first, first_drawn), (last, last_drawn) = ((sum(s.values()), s[True]) for s in judged)
    return EncoderStart(
        source="checkpoint",
        sample_size=sum(_is_judged(e) for e in (*before, *after)),
        before=first,
        before_drawn=first_drawn / first,
        after=last,
        after_drawn=last_drawn / last,
        listed=_listed(context, before),
        contradicted=any(e.contradicted for e in (*before, *after)),
    )


def _is_judged(entry: Entry) -> bool:
    return len(entry.shape) > 1 and math.prod(entry.shape) >= LEAST_ENTRIES


def _drawn(context: FileContext, entries: Sequence[Entry]) -> dict[bool, int]:
    """Return how many numbers are in matrices that are as they were drawn (True), and in others (False)."""
    own = set(context.views[0].keys.values())
    model = next(m for m in context.saved.models if not own.isdisjoint(m.raw.values()))
    sizes = {True: 0, False: 0}
    for entry in filter(_is_judged, entries):
        sample = context.checkpoint.tensors[model.raw[entry.name]].sample(_SAMPLE)
        with np.errstate(invalid="ignore"):  # the cast of a signalling NaN
            wide = np.asarray(sample, np.float64)
        sizes[is_drawn(wide, entry.shape)] += math.prod(entry.shape)
    return sizes


def _listed(context: FileContext, before: Sequence[Entry]) -> float | None:
    """Return the share of the numbers before the layer that the optimizer lists; None where it is unclear."""
    try:
        placed = placed_slots(context.saved, context.views[0], context.views)
    except Unplaced:
        return None
    if any(p.first is not p.last for p in placed):
        return None
    names = {p.first.name for p in placed}
    sizes = {entry.name: math.prod(entry.shape) for entry in before}
    return sum(size for name, size in sizes.items() if name in names) / sum(sizes.values())


PROBE = Probe(kinds=(EncoderStart,), measure=measure, of_model=True)
