"""Detach what is subtracted, and estimate the gradient once.

With `residual - z_q.detach()` the commitment loss of every level reaches the encoder. If every level then
keeps a straight-through step of its own, the task's gradient arrives once for each: Q times too large. One
step around the sum passes it once, as audiocraft and moshi do.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="detach-residual",
    stage=Stage.GRADIENT,
    safety=Safety.ADVICE,
    addresses=("VQ106",),
    how="Detach the codes before they are subtracted from the residual, and put one straight-through step "
    "around all levels.",
    code="residual = residual - z_q.detach()\n"
    "total = total + z_q\n"
    "out = z_e + (total - z_e).detach()   # once, after the last level",
    doc=__doc__,
)
