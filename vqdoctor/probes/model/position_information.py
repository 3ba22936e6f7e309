"""How much one position's code tells about the label, against what all positions tell together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqdoctor.core.evidence import PositionInformation
from vqdoctor.metrics.calibration import accuracy, chance_accuracy
from vqdoctor.metrics.information import (
    conditional_entropy_bits,
    entropy_bits,
    held_out_accuracy,
    mutual_information,
)
from vqdoctor.models.task import Split
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import each_layer

SPLIT: Split = "val"


def measure(context: ModelContext) -> dict[str, PositionInformation]:
    """Return the information of single positions, for every layer whose codes can be matched to labels."""
    scored = context.scored.get(SPLIT)
    measured: dict[str, PositionInformation] = {}
    if scored is None or scored.labels is None or scored.logits is None:
        return measured
    for name, codes in context.codes(SPLIT).items():
        if codes.shape[0] != len(scored.labels) or codes.shape[1] < 2 or codes.min() < 0:
            continue
        seen = context.seen.get(SPLIT, {}).get(name)
        measured[name] = PositionInformation(
            source="batch",
            sample_size=codes.size,
            positions=codes.shape[1],
            code_information=mutual_information(codes, scored.labels, context.seed),
            label_entropy=entropy_bits(scored.labels),
            code_accuracy=held_out_accuracy(codes, scored.labels, seed=context.seed),
            pooled_accuracy=accuracy(scored.logits, scored.labels),
            chance_accuracy=chance_accuracy(scored.labels),
            code_entropy=conditional_entropy_bits(codes),
            position_share=None if seen is None else _position_share(seen.z_e),
        )
    return measured


def _position_share(z_e: NDArray[np.float32]) -> float | None:
    """Return the share of the variance of z_e [samples, positions, D] that its mean at each position has."""
    vectors = z_e.astype(np.float64)
    total = np.square(vectors - vectors.mean(axis=(0, 1))).mean()
    inside = np.square(vectors - vectors.mean(axis=0)).mean()
    return 1 - float(inside / total) if total > 0 else None


WHY_NOT = "there are no labels, or only one position"
PROBE = each_layer(
    PositionInformation, measure, WHY_NOT, mode="eval", by_gradient=False, needs_codebook=False
)
