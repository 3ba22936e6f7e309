"""Move all codes to the mean and the spread of z_e.

Only chosen codes get a gradient, so codes that start far from z_e stay there. The 2-Wasserstein distance
between a Gaussian with the codes' moments and one with those of z_e has a closed form, and its gradient
moves every code (Fang et al. 2025, "Enhancing Vector Quantization with Distributional Matching",
arXiv:2506.15078). Retraining takes that step after every few batches, as the affine map that carries one
Gaussian onto the other. Codes that lie in one place have no spread to stretch: there k-means comes first.
"""

from __future__ import annotations

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Move the codes towards the moments of z_e while the model trains."""
    return replace(current, moment_matching=True)


REMEDY = Remedy(
    name="moment-matching",
    stage=Stage.INITIALISATION,
    how="Bring the mean and the covariance of the codes to those of z_e, at the start and while training.",
    code=(
        "root = sqrtm(cov_codes)   # of the codes; z_mean, z_cov of many z_e\n"
        "stretch = inv(root) @ sqrtm(root @ z_cov @ root) @ inv(root)\n"
        "codebook.copy_(z_mean + (codebook - codebook.mean(0)) @ stretch)"
    ),
    names=("codebook",),
    doc=__doc__,
    plan=plan,
)
