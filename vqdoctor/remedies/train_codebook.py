"""Give the codebook something that moves it.

Either a loss whose gradient reaches the raw looked-up codes, with the codebook among the optimizer's
parameters, or an EMA; not both, since the EMA overwrites what the optimizer did. Codebooks that are
frozen on purpose (SimVQ, random projection) need neither.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="train-codebook",
    stage=Stage.GRADIENT,
    safety=Safety.ADVICE,
    addresses=("VQ103",),
    how="Compute the codebook loss on the looked-up codes before the straight-through step, and give the "
    "codebook to the optimizer.",
    code="z_q = codebook[indices]   # the raw lookup, with its gradient\n"
    "vq = F.mse_loss(z_q, z_e.detach()) + 0.25 * F.mse_loss(z_e, z_q.detach())\n"
    "z_q = z_e + (z_q - z_e).detach()   # only now",
    doc=__doc__,
)
