"""Raise the weight of the VQ loss.

Raise it in small steps and watch the sizes of z_e and of the codes: they should stay within a factor
of two or three of each other.
"""

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Let the weight follow the gradients, unless the user sets another."""
    return replace(current, balanced=True)


REMEDY = Remedy(
    name="raise-vq-weight",
    stage=Stage.LOSS,
    how="Raise the weight of the VQ loss until z_e stays about as large as the codes; 0.1 to 1 is usual.",
    code="loss = task + 0.25 * vq",
    setting=("VQ weight", "1.0"),
    doc=__doc__,
    plan=plan,
    in_loss="sum",
)
