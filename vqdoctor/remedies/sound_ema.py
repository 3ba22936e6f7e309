"""Write the codes that a sound EMA rule gives.

A rule that loses the total of the counts, or that brings codes to a length which z_e does not have, writes
wrong codes at every step, and no estimator, weight or revival makes up for it. Retraining overwrites the
layer's own update after each step: the running counts and sums of van den Oord et al. 2017, codes at the
scale of the vectors that are looked up, and a commitment loss where the VQ loss has no gradient. The file is
read by the source as it is; a training from the source needs these lines in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy

RULE = """\
counts.lerp_(n, 1 - decay); sums.lerp_(sum_z, 1 - decay)   # of the batch
total = counts.sum(); smoothed = (counts + eps) / (total + K * eps) * total
codes.copy_(sums / smoothed[:, None])   # and no other factor"""
SCALE = """\
codes.copy_(sums / smoothed[:, None])   # without F.normalize, as z_e has none
# or both: z_e = F.normalize(z_e, dim=-1) before the lookup, and the codes"""
LOSS = "vq_loss = F.mse_loss(z_e, z_q.detach())   # before the straight-through line"

IN_SOURCE: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "VQ309": ("the EMA update writes wrong codes", RULE),
        "VQ310": ("codes and z_e have different scales", SCALE),
        "VQ206": ("the VQ loss has no gradient", LOSS),
    }
)
"""Code of a finding to why the source must change, and the lines that it then has."""


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Take the EMA of the codebooks over."""
    return replace(current, sound_ema=True)


REMEDY = Remedy(
    name="sound-ema",
    stage=Stage.INITIALISATION,
    how="Divide the EMA sums by the smoothed counts and by nothing else, keep codes and z_e at one scale, "
    "and let the VQ loss pull at z_e.",
    code=f"{RULE}\n{LOSS}",
    doc=__doc__,
    plan=plan,
)
