"""Start from a freshly built model.

Knowledge that a starved encoder has lost can cost more to bring back than to learn again: on 8x8 digits a
collapsed checkpoint came to accuracy 0.92 in 20 epochs of retraining with all remedies, a fresh model to
0.955. It gives the trained weights up, so it is not done unasked; `fix --retrain --trial` measures both.
"""

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Start from scratch."""
    return replace(current, start="scratch")


REMEDY = Remedy(
    name="fresh-start",
    stage=Stage.SCHEDULE,
    how="Train a freshly built model with the other remedies in place.",
    code="model = build_model()   # and no load_state_dict",
    doc=__doc__,
    plan=plan,
)
