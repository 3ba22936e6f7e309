"""Give the codebook more and smaller steps.

Last in line: more epochs do not cure a cause that is still at work. Smaller batches are more updates
per epoch at the same cost, and leave more codes to chance, which helps those that are rarely chosen.
"""

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy

EPOCHS = 200


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Train for 200 epochs or more, unless the user asks for fewer, with a faster EMA."""
    epochs = max(current.epochs, EPOCHS) if options.epochs is None else options.epochs
    return replace(current, epochs=epochs, decay=current.decay or 0.95)


REMEDY = Remedy(
    name="more-updates",
    stage=Stage.SCHEDULE,
    how="Train longer or in smaller batches: 200 epochs or more, EMA decay 0.95, batches of 16.",
    code="DataLoader(data, batch_size=16, shuffle=True)   # 200 epochs, decay 0.95",
    doc=__doc__,
    plan=plan,
)
