"""Codes that a layer's own update has written, against the means that its new sums and counts give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from vqdoctor.capture.layer import CapturedLayer
from vqdoctor.core.evidence import EmaRelation, Evidence, Unavailable
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.ema_relation import ema_relation
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.model._looks import Looking, shared
from vqdoctor.probes.probe import Probe

PASSES = 4
"""Training batches: the last one's codes have been written by the layer itself, whoever wrote them before."""

Arrays = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


@shared(passes=PASSES)
def look(context: ModelContext) -> Looking[dict[str, EmaRelation]]:
    """See the relation that the last pass leaves, of the layers of which each pass writes the codes."""
    before: dict[str, Arrays] = {}
    after: dict[str, Arrays] = {}
    written: set[str] = set()
    chosen: dict[str, set[int]] = {}
    for _ in range(PASSES):
        for name, step in ((yield None) or {}).items():
            arrays = arrays_of(step.layer)
            if arrays is None:
                continue
            codes = step.layer.reader.given(step.call)
            chosen.setdefault(name, set()).update([] if codes is None else codes.flatten().tolist())
            before[name], after[name] = after.get(name, arrays), arrays
            if before[name] is not arrays and not np.array_equal(before[name][0], arrays[0]):
                written.add(name)
    views = {view.name: view for view in context.views if view.name in written}
    found = {name: relation_of(view, after[name], chosen[name]) for name, view in views.items()}
    return {name: relation for name, relation in found.items() if relation is not None}


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield the relation that a few train-mode forward passes leave, where each of them writes the codes."""
    why = "the layer stores no EMA sums, or no forward pass writes its codebook, or too few codes are in use"
    yield from by_layer(context, EmaRelation, look.at(context), why)


def arrays_of(layer: CapturedLayer) -> Arrays | None:
    """Return copies of codes [K, D], counts [K] and sums [K, D] as they are; None where one is missing."""
    stored = layer.codebook
    if stored.codes is None or stored.counts is None or stored.sums is None:
        return None
    if stored.codes.shape != stored.sums.shape:
        return None
    codes, counts, sums = (t.float().cpu().numpy().copy() for t in (stored.codes, stored.counts, stored.sums))
    return codes, counts, sums


def relation_of(view: QuantizerView, arrays: Arrays, chosen: set[int]) -> EmaRelation | None:
    """Return the relation of the codes that were chosen: the others may still have their start values."""
    codes, counts, sums = arrays
    found = ema_relation(codes, counts, sums, {code for code in chosen if code >= 0})
    if found is None:
        return None
    numbers = {f.name: getattr(found, f.name) for f in fields(found) if f.name != "compared"}
    return EmaRelation(
        layer=view.name,
        source="batch",
        sample_size=int(np.count_nonzero(found.compared)),
        total=float(np.nansum(counts.astype(np.float64))),
        lookup=view.lookup or "",
        **numbers,
    )


PROBE = Probe(kinds=(EmaRelation,), measure=measure, mode="train")
