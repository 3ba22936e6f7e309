"""Clip the gradients, and skip a step whose gradients are not finite.

One vector that lies all but on its code, or one overflow, makes a step that undoes a thousand others: NaN in
a gradient is NaN in every weight that it reaches. A norm of at most 1 bounds what a step can do, and a step
that is not finite is left out, as a GradScaler does.
"""

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy

NORM = 1.0
"""Largest norm of all gradients together."""


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Clip the gradients of every step."""
    return replace(current, clip_norm=NORM)


REMEDY = Remedy(
    name="clip-gradients",
    stage=Stage.GRADIENT,
    how="Clip the norm of the gradients at every step, skip steps that are not finite, and pass the "
    "gradient straight through where the rotation trick makes the spikes.",
    code="norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n"
    "if torch.isfinite(norm):\n"
    "    optimizer.step()",
    doc=__doc__,
    plan=plan,
    in_loss="sum",
)
