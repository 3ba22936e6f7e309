"""Move the channels last, then flatten.

`view` and `reshape` only count off memory, in which a feature map stores channel after channel; `permute`
alone changes which values stand together. The way back needs it too: reshape to [B, H, W, D], then permute.
The codes that were learnt stand for strips of a channel, so train the codebook again afterwards.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="permute-before-flatten",
    stage=Stage.GRADIENT,
    safety=Safety.ADVICE,
    addresses=("VQ105",),
    how="Move the channels last before a feature map is flattened into vectors, and back after the lookup.",
    code="vectors = z_e.permute(0, 2, 3, 1).reshape(-1, z_e.shape[1])",
    doc=__doc__,
)
