"""Let the EMA remember more batches.

With decay d it averages over (1 + d) / (1 - d) batches: 9 with 0.8, 39 with 0.95, 199 with 0.99. A code that
gets no vector within them is forgotten. `lerp_` asks for the weight of the new batch, 1 - d: with 0.99 that
is a decay of 0.01.
"""

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Raise the EMA decay of the codebooks."""
    return replace(current, decay=0.99)


REMEDY = Remedy(
    name="slower-ema",
    stage=Stage.INITIALISATION,
    how="Raise the EMA decay to 0.99, so that the codebook remembers more than the last batches.",
    code="decay = 0.99   # remembers 199 batches; counts.lerp_(n, 1 - decay)",
    setting=("decay", "0.99"),
    doc=__doc__,
    plan=plan,
)
