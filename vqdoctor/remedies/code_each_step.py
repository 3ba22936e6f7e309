"""Let each position be coded from its own part of the input.

Look for an average over time, an attention or a recurrent layer that ends up giving every position the
same summary, and a position embedding that is added before the VQ layer and drowns the input. A VQ layer
whose codes are too coarse for the changes needs more codes, or a smaller stride before it.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="code-each-step",
    stage=Stage.DOWNSTREAM,
    safety=Safety.ADVICE,
    addresses=("VQ604",),
    how="Quantize what belongs to a position alone: no average over time and no position embedding before "
    "the VQ layer.",
    code="z_q, indices, vq_loss = vq(encoder(x))   # [B, T, D], not its mean\n"
    "h = z_q + positions                      # positions come after it",
    doc=__doc__,
)
