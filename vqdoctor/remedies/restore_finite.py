"""Find a file from before the accident.

NaN cannot be repaired, only replaced. Where some codes are broken and the rest of the model is whole,
`vqdoctor fix --unsafe-fixes` moves these codes as if they were dead. To keep NaN away, keep the
distances in float32 (squared distances of vectors of size 20 in 256 dimensions are infinite in half
precision), clip the gradient, and stop a run at the first loss that is not finite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqdoctor.core.levels import Stage
from vqdoctor.remedies._remedy import Remedy

if TYPE_CHECKING:  # a remedy is shown without numpy
    from vqdoctor.layouts.layer_arrays import LayerArrays


def apply(layer: LayerArrays) -> str:
    """Give sums and counts that are not finite new values, and codes that are not finite new places."""
    import numpy as np

    from vqdoctor.remedies._places import relocate

    broken, off, counts = ~layer.finite, layer.broken_statistics(), layer.sound_counts()
    if broken.all():
        return "no code is finite: go back to an earlier file"
    if not broken.any() and not off.any():
        return "codes, sums and counts are finite"
    if counts is not None:
        layer.settle(np.where(off, np.maximum(counts, layer.least_count()), counts), estimated=True, also=off)
    if broken.any() and not relocate(layer, broken):
        return "no code has two different vectors to share"
    return ""


REMEDY = Remedy(
    name="restore-finite",
    stage=Stage.FILE,
    changes_weights=True,
    how="Go back to the last file without NaN or infinite values, and run the quantizer in float32.",
    code="with torch.autocast(device_type, enabled=False):\n    z_q, indices, vq_loss = vq(z_e.float())",
    names=("vq", "z_q, indices, vq_loss"),
    doc=__doc__,
    apply=apply,
)
