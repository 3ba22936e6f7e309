"""The levels of a stack at work: what the levels before leave to each."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from vqdoctor.capture.observe import SPLITS
from vqdoctor.core.evidence import Evidence, LevelUse, Unavailable
from vqdoctor.layouts.stacks import stacks
from vqdoctor.metrics.entropy import plug_in_entropy
from vqdoctor.metrics.geometry import spread
from vqdoctor.probes._levels import levels
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.probe import Probe


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield what is known of every level, with the spread of its input over that of the first."""
    first = {view.name: stack[0].name for stack in stacks(context.views) for view in stack}
    spreads = {name: _spread(context, name) for name in {*first, *first.values()}}
    perplexities = {name: _perplexity(context, name) for name in set(first.values())}
    found = {item.layer: item for item in levels(context.views, "batch")}
    for view in context.views:
        item = found.get(view.name)
        if item is None:
            reason = "the layer is no level of a stack"
            yield Unavailable(kind=LevelUse.kind, layer=view.name, source="batch", reason=reason)
            continue
        top = first[view.name]
        own, whole = spreads[view.name], spreads[top]
        left = own / whole if own is not None and whole else None
        yield item.replace(left=left, first_perplexity=perplexities[top])


def _spread(context: ModelContext, name: str) -> float | None:
    parts = [layers[name].z_e for layers in context.seen.values() if name in layers]
    return spread(np.concatenate([part.reshape(-1, part.shape[-1]) for part in parts])) if parts else None


def _perplexity(context: ModelContext, name: str) -> float | None:
    by_split = [context.codes(split) for split in SPLITS]
    parts = [codes[name].ravel() for codes in by_split if name in codes]
    codes = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
    codes = codes[codes >= 0]  # masked positions have none
    return math.exp(plug_in_entropy(np.bincount(codes))) if codes.size else None


PROBE = Probe(kinds=(LevelUse,), measure=measure, mode="eval")
