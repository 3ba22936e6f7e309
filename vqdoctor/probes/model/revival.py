"""Codes that the layer, or somebody before it, moved by hand: does the forward pass take them back?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from vqdoctor.capture.step import Step
from vqdoctor.capture.writes import BACK, Writes, rows_of
from vqdoctor.core.evidence import Revival
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.probes._ema_rows import blurred, ema_rows, stale
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import each_layer
from vqdoctor.probes.model._looks import Looking, shared

PASSES = 4


def _passes(context: ModelContext) -> int:
    return max(PASSES, context.probe_steps)


@shared(passes=_passes)
def look(context: ModelContext) -> Looking[dict[str, Revival]]:
    """See the codes that train-mode forward passes (a few, or the probe steps if more) put back."""
    views = {view.name: view for view in context.views}
    # only now is the copy known that goes through the passes; its first one may also place the codes
    first: Mapping[str, Step] = (yield None) or {}
    codebooks = {name: stored for name, step in first.items() if (stored := step.layer.stored()) is not None}
    returned = {name: _returned(views[name], rows_of(codebook)) for name, codebook in codebooks.items()}
    undone = dict.fromkeys(codebooks, 0)
    for _ in range(_passes(context) - 1 if codebooks else 0):
        writes = Writes(codebooks)
        yield writes
        undone = {name: max(most, writes.undone(name)) for name, most in undone.items()}
    return {
        name: Revival(
            source="batch",
            sample_size=_passes(context),
            num_codes=views[name].num_codes,
            undone=undone[name],
            returned=returned[name],
        )
        for name in codebooks
    }


def measure(context: ModelContext) -> dict[str, Revival]:
    """Return the codes that forward passes put back, of every layer."""
    return look.at(context)


def _returned(view: QuantizerView, rows: torch.Tensor) -> int:
    """Return how many codes that were away from their sum over count went there."""
    means, after = ema_rows(view), rows.cpu().numpy()
    if means is None or after.shape != view.codebook.shape or view.derived or blurred(view):
        return 0
    away = stale(view, means)
    way = np.linalg.norm(means - view.codebook, axis=1)
    left = np.linalg.norm(means - after, axis=1)
    return int((away & (left < BACK * way)).sum())


PROBE = each_layer(Revival, measure, "the layer stores no codebook", mode="train")
