"""Let the EMA forget its start values.

The start values weigh decay ** updates. With 0.99 they are under 5 % after 300 updates, with 0.9999
after 30,000. The change takes effect by training on; it goes well with data-init, which makes the
start values good ones.
"""

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Lower the EMA decay of the codebooks."""
    return replace(current, decay=0.95)


REMEDY = Remedy(
    name="faster-ema",
    stage=Stage.INITIALISATION,
    how="Lower the EMA decay to 0.95 to 0.99, so that the codebook can follow the encoder.",
    code="decay = 0.95   # remembers 20 batches; 0.99 remembers 100",
    setting=("decay", "0.95"),
    doc=__doc__,
    plan=plan,
)
