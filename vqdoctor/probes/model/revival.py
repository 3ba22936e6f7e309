"""Codes that the layer, or somebody before it, moved by hand: does the forward pass take them back?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from vqdoctor.capture.writes import BACK, Writes, rows_of
from vqdoctor.core.evidence import Evidence, Revival, Unavailable
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.probes._ema_rows import ema_rows, stale
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import by_layer
from vqdoctor.probes.probe import Probe

PASSES = 4


def measure(context: ModelContext) -> Iterator[Evidence | Unavailable]:
    """Yield what a few train-mode forward passes (as many as the probe steps, if more) put back."""
    views = {view.name: view for view in context.views}
    passes = max(PASSES, context.probe_steps)
    steps = context.steps(passes)
    first = next(steps, {})
    # only now is the copy known that goes through the passes; its first one may also place the codes
    codebooks = {name: stored for name, step in first.items() if (stored := step.layer.stored()) is not None}
    returned = {name: _returned(views[name], rows_of(codebook)) for name, codebook in codebooks.items()}
    undone = dict.fromkeys(codebooks, 0)
    for _ in range(passes - 1 if codebooks else 0):
        with Writes(codebooks) as writes:
            next(steps)
        undone = {name: max(most, writes.undone(name)) for name, most in undone.items()}
    measured = {
        name: Revival(
            layer=name,
            source="batch",
            sample_size=passes,
            num_codes=views[name].num_codes,
            undone=undone[name],
            returned=returned[name],
        )
        for name in codebooks
    }
    yield from by_layer(context, Revival, measured, "the layer stores no codebook")


def _returned(view: QuantizerView, rows: torch.Tensor) -> int:
    """Return how many codes that did not stand at their sum over count went there."""
    means, after = ema_rows(view), rows.cpu().numpy()
    if means is None or after.shape != view.codebook.shape:
        return 0
    away = stale(view, means)
    way = np.linalg.norm(means - view.codebook, axis=1)
    left = np.linalg.norm(means - after, axis=1)
    return int((away & (left < BACK * way)).sum())


PROBE = Probe(kinds=(Revival,), measure=measure, mode="train")
