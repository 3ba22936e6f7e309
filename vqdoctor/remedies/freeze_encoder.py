"""Hold z_e still until the rest of the model knows the new codes.

Codes that were just placed mean something else to the decoder, whose first gradients then pull the encoder
away from them. For the first epochs with VQ, all parameters that z_e depends on stay as they are, and only
what comes behind the layer is trained. An encoder that has learned nothing yet is better left free.
"""

from __future__ import annotations

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy

MOST_EPOCHS = 3
"""Epochs in which the encoder is held, where a plan has at least ten times as many in all."""


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Hold the encoder in the first epochs with VQ."""
    return replace(current, frozen_epochs=max(1, min(MOST_EPOCHS, current.epochs // 10)))


REMEDY = Remedy(
    name="freeze-encoder",
    stage=Stage.SCHEDULE,
    how="Train only what comes behind the VQ layer for the first epochs after its codes were placed.",
    code="encoder.requires_grad_(epoch >= 3)",
    doc=__doc__,
    plan=plan,
)
