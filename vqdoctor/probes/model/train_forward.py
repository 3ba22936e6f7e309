"""The effect of train-mode forward passes alone on a codebook that was just loaded."""

from __future__ import annotations

import numpy as np

from vqdoctor.core.evidence import TrainForward
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._forwards import Pass, passes
from vqdoctor.probes.model._gaps import each_layer


def measure(context: ModelContext) -> dict[str, TrainForward]:
    """Return how far the codes in use move in the first pass, and in the later ones."""
    return {name: _evidence(parts) for name, parts in passes(context).items() if len(parts) > 1}


def _evidence(parts: list[Pass]) -> TrainForward:
    first, *later = [float(np.median(one.travelled[one.in_use])) for one in parts]
    written = [one.counts_moved for one in parts if one.counts_moved is not None]
    return TrainForward(
        source="batch",
        sample_size=len(parts),
        first_moved=first,
        later_moved=max(later),
        writes_counts=any(written) if written else None,
    )


PROBE = each_layer(TrainForward, measure, mode="train")
