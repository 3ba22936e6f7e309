"""Lower the weight of the VQ loss.

At weight 0.1 its gradient at z_e was under a hundredth of the task's on trained digit models, and the
codebooks stayed in use. Look at the reductions first: a mean over D dimensions in one loss and a sum
in the other is a hidden factor of D. So where the VQ loss was found too heavy, a retraining goes further
down, to where it pulls at z_e by a tenth of the task loss. The change takes effect by training on.
"""

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import LIGHT, PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Set the weight of the VQ loss: that of the user, else a tenth at most."""
    if options.vq_weight is not None:
        return replace(current, vq_weight=options.vq_weight, balanced=options.balanced)
    return replace(current, vq_weight=LIGHT, balanced=options.balanced, capped=options.asked)


REMEDY = Remedy(
    name="lower-vq-weight",
    stage=Stage.LOSS,
    how="Weigh the VQ loss at a tenth of the task loss, with both reduced alike (both means or both sums).",
    code="loss = task + 0.1 * vq",
    setting=("VQ weight", "0.1"),
    doc=__doc__,
    plan=plan,
    in_loss="weight",
)
