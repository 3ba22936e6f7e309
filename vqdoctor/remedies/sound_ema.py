"""Write the codes that a sound EMA rule gives.

A rule that loses the total of the counts, or that brings codes to a length which z_e does not have, writes
wrong codes at every step, and no estimator, weight or revival makes up for it. Retraining overwrites the
layer's own update after each step: the running counts and sums of van den Oord et al. 2017, codes at the
scale of the vectors that are looked up, and a commitment loss where the VQ loss has no gradient. The file is
read by the source as it is; a training from the source needs these lines in it.
"""

from __future__ import annotations

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Take the EMA of the codebooks over."""
    return replace(current, sound_ema=True)


REMEDY = Remedy(
    name="sound-ema",
    stage=Stage.INITIALISATION,
    how="Divide the EMA sums by the smoothed counts alone, keep codes and z_e at one scale, "
    "and let the VQ loss pull at z_e.",
    code=(
        "counts.lerp_(n, 1 - decay); sums.lerp_(sum_z, 1 - decay)   # of the batch\n"
        "smoothed = (counts + eps) * counts.sum() / (counts.sum() + K * eps)\n"
        "codebook.copy_(sums / smoothed[:, None])   # normalize only if z_e has it\n"
        "vq_loss = F.mse_loss(z_e, z_q.detach())   # before straight-through"
    ),
    names=("codebook", "counts", "sums"),
    doc=__doc__,
    plan=plan,
)
