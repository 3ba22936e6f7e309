"""Write the sums and counts that belong to the codes.

No code moves, so the outputs stay the same; only the next update no longer jumps. Codes that have
blown up stay where they are: revive them afterwards (revive-dead-codes). In training code, start the
counts at one and never write codes without their sums and counts.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="reset-ema",
    stage=Stage.INITIALISATION,
    safety=Safety.SAFE,
    addresses=("VQ303", "VQ304"),
    how="Make the EMA agree with the codebook: counts of at least one, and sums equal to codes times counts.",
    code="vq.ema_cluster_size.clamp_(min=1.0)\nvq.ema_sum.copy_(vq.embedding * vq.ema_cluster_size[:, None])",
    doc=__doc__,
)
