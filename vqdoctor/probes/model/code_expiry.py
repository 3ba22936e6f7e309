"""The vectors of a batch against the codes, and how many codes a forward pass replaces."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from vqdoctor.core.evidence import CodeExpiry, Evidence, Unavailable
from vqdoctor.layouts.live_rows import never_written
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._forwards import FAR, Pass, passes
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.probe import Probe

_THRESHOLDS = ("threshold_ema_dead_code", "revival_threshold", "restart_thres")
"""What libraries call the EMA count under which they replace a code. A `dead_code_threshold` is none: in
home-made layers it is a number of steps, and a switch beside it may turn the replacement off."""


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield every layer's batch against its codebook; the first pass, which may initialise, is left out."""
    seen: dict[str, list[Pass]] = defaultdict(list)
    for view, one in passes(context):
        if one.number:
            seen[view.name].append(one)
    measured = {v.name: _evidence(context, v, seen[v.name]) for v in context.views if v.name in seen}
    yield from by_layer(context, CodeExpiry, measured)


def _evidence(context: ModelContext, view: QuantizerView, parts: list[Pass]) -> CodeExpiry:
    threshold = _threshold(context, view)
    counts = view.counts
    known = counts is not None and bool(np.isfinite(counts).all()) and not never_written(counts)
    return CodeExpiry(
        layer=view.name,
        source="batch",
        sample_size=view.num_codes,
        vectors=float(np.mean([one.vectors for one in parts])),
        threshold=threshold,
        expired=float((counts <= threshold * (1 + 1e-6)).mean())
        if known and counts is not None and threshold
        else None,
        replaced=float(
            np.median([np.sum(p.travelled > FAR) / min(len(p.travelled), p.vectors) for p in parts])
        ),
    )


def _threshold(context: ModelContext, view: QuantizerView) -> float | None:
    """Return the threshold that the codebook's module holds; 0 turns the replacement off."""
    module = context.model.get_submodule(context.layers[view.name].tensors["codebook"].rpartition(".")[0])
    held = (getattr(module, name, None) for name in _THRESHOLDS)
    numbers = (float(value) for value in held if isinstance(value, int | float) and value > 0)
    return next(numbers, None)


PROBE = Probe(kinds=(CodeExpiry,), measure=measure, mode="train")
