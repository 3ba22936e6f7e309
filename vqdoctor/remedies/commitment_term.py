"""Add the commitment term that the loss lacks.

Without it the codes follow z_e, and nothing holds z_e at the codes: the encoder's outputs grow or drift, and
ever fewer codes are within reach. Retraining adds β · mse(z_e, sg z_q) to the VQ loss at the boundary of each
layer, with the β of van den Oord et al. 2017; where the task reports no VQ loss, the layer's own is taken. A
training from the source needs the term in its loss.
"""

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import LIGHT, PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy

BETA = 0.25
"""Weight of the commitment term in the VQ loss: van den Oord et al. 2017, section 3.2."""


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Add the term, and give a VQ loss of weight 0 the usual weight."""
    return replace(current, commitment=BETA, vq_weight=current.vq_weight or options.vq_weight or LIGHT)


REMEDY = Remedy(
    name="commitment-term",
    stage=Stage.LOSS,
    how="Add 0.25 times the mean squared distance of z_e to the detached codes to the VQ loss.",
    code="vq = vq + 0.25 * F.mse_loss(z_e, z_q.detach())   # before straight-through",
    doc=__doc__,
    plan=plan,
    in_loss="sum",
)
