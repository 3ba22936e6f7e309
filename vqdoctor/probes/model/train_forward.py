"""The effect of train-mode forward passes alone on a codebook that was just loaded."""

from __future__ import annotations

import numpy as np

from vqdoctor.core.evidence import TrainForward
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._forwards import Pass, passes
from vqdoctor.probes.model._gaps import each_layer

SAME_DECAY = 0.1
"""Relative difference of 1 - d among passes up to which it is one decay: a warm-up changes it more."""


def measure(context: ModelContext) -> dict[str, TrainForward]:
    """Return how far the codes in use move in the first pass, and in the later ones."""
    return {name: _evidence(parts) for name, parts in passes.at(context).items() if len(parts) > 1}


def _evidence(parts: list[Pass]) -> TrainForward:
    first, *later = [float(np.median(one.travelled[one.in_use])) for one in parts]
    decays = [one.decay for one in parts[1:] if one.decay is not None]
    means = [one.batch_means for one in parts[1:] if one.batch_means is not None]
    written = [one.counts_moved for one in parts if one.counts_moved is not None]
    return TrainForward(
        source="batch",
        sample_size=len(parts),
        first_moved=first,
        later_moved=max(later),
        writes_counts=any(written) if written else None,
        decay=float(np.median(decays)) if decays and np.ptp(decays) <= SAME_DECAY * (1 - decays[0]) else None,
        batch_means=min(means) if means else None,
    )


PROBE = each_layer(TrainForward, measure, mode="train")
