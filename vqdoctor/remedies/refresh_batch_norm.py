"""Let the running statistics of batch norms follow the data.

In eval mode a batch norm takes its running statistics for those of the data. With a momentum of nearly
nothing they are those of the first steps, and other codes are chosen than in training. Statistics that are
collected afresh repair the file; a momentum of 0.1, torch's default, keeps them right. A retraining uses that
one where the model's own is far from it.
"""

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy

MOMENTUM = 0.1


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Give batch norms whose statistics hardly follow torch's default momentum."""
    return replace(current, norm_momentum=MOMENTUM)


REMEDY = Remedy(
    name="refresh-batch-norm",
    stage=Stage.DOWNSTREAM,
    how="Collect the running statistics of batch norms afresh.",
    code=(
        "for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):\n"
        "    norm.reset_running_stats(); norm.momentum = None   # a plain average\n"
        "for x in loader: model.train()(x)   # no optimizer steps"
    ),
    doc=__doc__,
    plan=plan,
)
