"""Search in float32 whatever the rest runs in.

The search compares distances that differ in their last digits, and an EMA adds one part in a hundred:
bfloat16 has room for neither. It costs next to nothing beside the encoder. After `model.half()` or
`model.bfloat16()` cast the VQ layer back with `.float()`, buffers included.
"""

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Run the VQ layers in float32."""
    return replace(current, full_precision=True)


REMEDY = Remedy(
    name="full-precision-lookup",
    stage=Stage.GRADIENT,
    how="Keep the codebook and its EMA in float32, and search for codes in float32 with autocast off.",
    code="with torch.autocast(z_e.device.type, enabled=False):\n"
    "    indices = torch.cdist(z_e.float(), codebook.float()).argmin(-1)",
    names=("codebook",),
    doc=__doc__,
    plan=plan,
)
