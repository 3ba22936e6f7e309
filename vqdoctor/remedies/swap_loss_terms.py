"""Put beta on the commitment term.

The term with `z_e.detach()` moves the codebook; the one with `z_q.detach()` is the commitment and moves the
encoder. In taming-transformers, diffusers and their heirs it is `legacy=False`. A training that was tuned
with the terms swapped has an effective VQ weight of beta and an effective beta of 1/beta: to keep its
balance, use these.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="swap-loss-terms",
    stage=Stage.LOSS,
    safety=Safety.ADVICE,
    addresses=("VQ203",),
    how="Multiply the term that moves the encoder by beta, not the one that moves the codebook.",
    code="vq = F.mse_loss(z_q, z_e.detach()) + beta * F.mse_loss(z_e, z_q.detach())",
    doc=__doc__,
)
