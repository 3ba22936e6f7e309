"""Give the encoder time before the VQ loss pulls.

In the first epochs the encoder's outputs are not worth committing to, and a strong pull to one of a
few near codes is what starts a collapse. It only makes a difference to a run from the start.
"""

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Let the weight of the VQ loss grow."""
    return replace(current, warm_up_epochs=options.warm_up_epochs)


REMEDY = Remedy(
    name="warm-up",
    stage=Stage.SCHEDULE,
    how="Let the weight of the VQ loss grow from 0 to its full value over the first 10 epochs.",
    code="vq_weight = 0.1 * min(1.0, epoch / 10)\nloss = task + vq_weight * vq",
    doc=__doc__,
    plan=plan,
    in_loss="weight",
)
