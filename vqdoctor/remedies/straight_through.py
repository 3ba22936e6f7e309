"""Put a straight-through estimator behind the VQ layer.

The value of z_q stays the same, so the file's outputs do not change; only training does. Compute the
codebook and commitment losses on the raw looked-up codes first, and make this the last line. Some
libraries do it only in train mode: call `model.train()`.

A file that was trained without it has a starved encoder. Retraining it with the other remedies can
cost more than a fresh start with all of them (accuracy 0.92 against 0.955 after 20 epochs on 8x8
digits), so compare both.
"""

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import Estimator, PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Graft the estimator onto the layers that lack it."""
    grafts: dict[str, Estimator] = dict.fromkeys(options.layers, "straight-through")
    return replace(current, estimators={**current.estimators, **grafts})


REMEDY = Remedy(
    name="straight-through",
    stage=Stage.GRADIENT,
    how="Let the gradient at z_q pass to z_e unchanged, as the last step of the VQ layer.",
    code="z_q = z_e + (z_q - z_e).detach()",
    doc=__doc__,
    plan=plan,
)
