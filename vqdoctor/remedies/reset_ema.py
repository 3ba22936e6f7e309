"""Write the sums and counts that belong to the codes.

No code moves, so the outputs stay the same; only the next update no longer jumps. Codes that have
blown up stay where they are: revive them afterwards (revive-dead-codes). Counts are raised to a twentieth
of the mean and no further: a dead code still counts as one, but its sum no longer fades to zero. In
training code, start the counts at one, and write codes only together with their sums and counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqdoctor.core.levels import Stage
from vqdoctor.remedies._remedy import Remedy

if TYPE_CHECKING:  # a remedy is shown without numpy
    from vqdoctor.layouts.layer_arrays import LayerArrays


def apply(layer: LayerArrays) -> str:
    """Raise lost counts, and write the sums of the codes that would jump."""
    import numpy as np

    counts, off = layer.sound_counts(), layer.disagreeing()
    if counts is None or off is None:
        return "the layer stores no EMA sums and counts"
    least = layer.least_count()
    raised = np.where(
        counts < 0.5 * least, least, counts
    )  # raising some also raises the mean, by 5 % at most
    if not off.any() and (raised == counts).all():
        return "counts and sums agree with the codes"
    layer.settle(raised, estimated=False, also=off)
    return ""


REMEDY = Remedy(
    name="reset-ema",
    stage=Stage.INITIALISATION,
    how="Make the EMA agree with the codebook: sums equal to codes times counts, counts well above zero.",
    code="counts.clamp_(min=0.05 * counts.mean())\nsums.copy_(codebook * counts[:, None])",
    names=("codebook", "counts", "sums"),
    doc=__doc__,
    apply=apply,
)
