"""Move all codes together.

Only chosen codes get a gradient, so those that are not chosen fall behind. With the codebook written as
a fixed table times one trained matrix (Zhu et al. 2024, SimVQ), every step moves every code. The
file that is written holds the product: the model's source need not change.
"""

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Train one matrix of the codebook in place of its rows."""
    return replace(current, linear=True)


REMEDY = Remedy(
    name="linear-codebook",
    stage=Stage.USAGE,
    how="Write the codebook as a fixed table times a trained matrix, so that every step moves every code.",
    code="codebook = table @ matrix   # [K, D] fixed times [D, D] trained (SimVQ)",
    doc=__doc__,
    plan=plan,
)
