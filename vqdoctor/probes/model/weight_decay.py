"""The weight decay that the task's own optimizer puts on the codebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from vqdoctor.core.evidence import WeightDecay
from vqdoctor.layouts.live_rows import never_written
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.geometry import row_norms
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import each_layer
from vqdoctor.probes.probe import Missing
from vqdoctor.saved.optimizer import RATES
from vqdoctor.saved.weight_decay import EXEMPT, decays_adaptively, lost_length, short_rows


def measure(context: ModelContext) -> dict[str, WeightDecay]:
    """Return the weight decay of every codebook that the optimizer moves."""
    if context.record is not None and context.record.exempt_codebook:
        raise Missing(EXEMPT)
    own = context.own_optimizer()
    if own is None:
        raise Missing("the task has no optimizer")
    model, optimizer = own
    measured = {}
    for view in context.views:
        codebook = context.layers[view.name].on(model).stored()
        if codebook is None:
            continue
        group = next((g for g in optimizer.param_groups if any(p is codebook for p in g["params"])), None)
        by_ema = view.counts is not None and not never_written(view.counts)
        if group is not None and codebook.requires_grad and not by_ema and np.isfinite(view.codebook).all():
            measured[view.name] = _evidence(context, view, codebook, group)
    return measured


def _evidence(
    context: ModelContext, view: QuantizerView, codebook: torch.Tensor, group: Mapping[str, Any]
) -> WeightDecay:
    updates = context.record.updates if context.record else None
    decay, rate = float(group.get("weight_decay", 0.0)), float(group["lr"])
    adaptive = decays_adaptively(group)
    rms = float(codebook.detach().double().square().mean().sqrt())
    last = rate if context.last_rate is None else min(context.last_rate, rate)
    evenly = (rate + last) / 2  # the mean of a linear schedule, and of a cosine
    lost = [
        None if updates is None else lost_length(decay, each, updates, rms=rms, adaptive=adaptive)
        for each in (evenly, rate)
    ]
    highest = max(float(group[name]) for name in RATES if group.get(name) is not None)
    return WeightDecay(
        source="batch",
        sample_size=view.num_codes,
        weight_decay=decay,
        learning_rate=rate,
        updates=updates,
        adaptive=adaptive,
        lost=lost[0],
        lost_at_most=lost[1] if last < rate else None,
        short_rows=short_rows(row_norms(view.codebook)),
        reach=highest * updates if updates and "betas" in group else None,
    )


NOT_MOVED = "the optimizer does not move the codebook"
PROBE = each_layer(WeightDecay, measure, NOT_MOVED)
