"""Make the encoder's output vary again.

First fix the cause that starves it (the gradient, the weight of the VQ loss). Then start afresh: an encoder
that has forgotten its input costs more to bring back than to train again (accuracy 0.92 against 0.955
after 20 epochs on 8x8 digits). End it with a linear layer, because a ReLU can be zero for every input, and
with a norm over the batch, which gives each dimension a spread of one. Where the report blames the data,
the model needs nothing: examine it on samples that differ.
"""

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Build everything that leads to z_e anew."""
    return replace(current, start="fresh-encoder")


REMEDY = Remedy(
    name="wake-encoder",
    stage=Stage.USAGE,
    how="Train the encoder afresh, without an activation at its end and with a batch norm before the VQ "
    "layer, on data that varies.",
    code="to_vq = nn.Sequential(nn.Linear(width, dim), nn.BatchNorm1d(dim))\nz_e = to_vq(features)",
    doc=__doc__,
    plan=plan,
)
