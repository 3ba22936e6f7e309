"""Pass the gradient through the rotation that takes z_e to its code.

The straight-through estimator gives every z_e of a code the same gradient. The rotation trick (Fifty et
al. 2024, "Restructuring Vector Quantization with the Rotation Trick") turns the gradient with the
rotation from z_e to z_q and scales it by the ratio of their lengths, so that vectors on opposite sides
of a code are told apart. It is another estimator, not a cure of a cause: try it against the plan with
`--trial`.
"""

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Graft the rotation onto the layers."""
    return replace(current, estimators={**current.estimators, **dict.fromkeys(options.layers, "rotation")})


REMEDY = Remedy(
    name="rotation-trick",
    stage=Stage.GRADIENT,
    how="Turn the gradient at z_q by the rotation from z_e to z_q, in place of copying it.",
    code="vq = VectorQuantize(..., rotation_trick=True)   # vector-quantize-pytorch",
    setting=("rotation", "True"),
    doc=__doc__,
    plan=plan,
)
