"""Let an EMA move the codes.

A codebook loss that was computed on detached codes, or codes that the optimizer does not list, leave the
codebook where it was initialised. Retraining moves every code after each step to the running mean of the
vectors that chose it, as in van den Oord et al. 2017, whatever the loss does. The file is read by the source
as it is; a training from the source needs the codebook loss and the codes in its optimizer, or such an EMA.
"""

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Take the codebooks over."""
    return replace(current, sound_ema=True)


REMEDY = Remedy(
    name="codes-by-ema",
    stage=Stage.GRADIENT,
    how="Move each code to the running mean of the vectors that chose it, after every step.",
    code=(
        "counts.lerp_(n, 1 - decay); sums.lerp_(sum_z, 1 - decay)   # of the batch\n"
        "codebook.copy_(sums / counts.clamp_min(1e-5)[:, None])"
    ),
    names=("codebook",),
    doc=__doc__,
    plan=plan,
    writes_codes=True,
)
