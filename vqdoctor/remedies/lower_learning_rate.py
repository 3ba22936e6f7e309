"""Lower the learning rate.

A step of Adam moves every weight by about the learning rate, whatever the gradient: above 0.01 the first
steps throw z_e off its codes faster than they can follow, and no later step brings it back. A retraining
takes rates above the usual ones down to these (0.001 for Adam, 0.1 for SGD, 0.01 for RMSprop and Adagrad),
and begins with a freshly built model where the finding is an error.
"""

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Take learning rates above the usual ones down to these."""
    return replace(current, usual_rate=True)


REMEDY = Remedy(
    name="lower-learning-rate",
    stage=Stage.SCHEDULE,
    how="Divide the learning rate by 10 until the task loss falls from the first steps on, and train "
    "from the start.",
    code="optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)",
    doc=__doc__,
    plan=plan,
)
