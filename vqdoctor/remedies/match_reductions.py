"""Reduce both losses alike.

A sum over D dimensions counts D times as much as a mean. Either make the VQ loss a mean, or make the
reconstruction loss a sum over its own dimensions; both are the same up to the learning rate. Where the sum
must stay, divide the VQ weight by D.
"""

from __future__ import annotations

from vqdoctor.core.levels import Safety, Stage
from vqdoctor.core.remedy import Remedy

REMEDY = Remedy(
    name="match-reductions",
    stage=Stage.LOSS,
    safety=Safety.ADVICE,
    addresses=("VQ204",),
    how="Average the VQ loss over the dimensions as the task loss is averaged, or sum both.",
    code="vq = F.mse_loss(z_e, z_q.detach())   # a mean, as in the task",
    doc=__doc__,
)
