"""Keep z_e where the codes are.

A norm layer fixes the mean and the size of z_e, so an offset at the start and a runaway later are
both impossible. It changes the model: train it afresh.
"""

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Bring every z_e to zero mean and unit variance over its elements."""
    return replace(current, geometry="unit-variance")


REMEDY = Remedy(
    name="normalise-before-vq",
    stage=Stage.LOSS,
    how="Put a norm layer before the VQ layer, or compare directions only (cosine codes), so that z_e "
    "cannot drift away.",
    code="z_e = F.layer_norm(encoder(x), (dim,))   # over the code dimension, last",
    doc=__doc__,
    plan=plan,
    changes_model=True,
)
