"""Let the model learn without VQ first.

Codes that are placed in an untrained encoder's output span few of its directions, and stay there. So the
model learns with its layers bypassed; then k-means places the codebooks in what the encoder has learned, and
VQ begins with the warm-up of its loss. A retraining trains the model without VQ for its goals anyway: it goes
on from there where that model does the task better than the checkpoint, and from the checkpoint at once where
that knows as much already. Where no such training sets a goal, the first epochs are without VQ. Measured on
development models of the fault bench (seed 909): of the five that fifteen epochs of it left behind the model
without VQ, four reached their goals from there; one that had just reached them fell 0.2 points of accuracy
short.
"""

from __future__ import annotations

from dataclasses import replace

from vqdoctor.core.levels import Stage
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies._remedy import Remedy

MOST_EPOCHS = 15
"""Epochs without VQ; of a plan of fewer than 50 epochs three in ten."""


def plan(current: TrainingPlan, options: PlanOptions) -> TrainingPlan:
    """Bypass the layers at first, and place the codebooks afterwards."""
    return replace(current, bypass_epochs=min(MOST_EPOCHS, 3 * current.epochs // 10), data_init=True)


REMEDY = Remedy(
    name="autoencoder-warm-up",
    stage=Stage.INITIALISATION,
    how="Train for some epochs without the VQ layer, then place its codes by k-means and put it in.",
    code="z_q, vq_loss = (z_e, 0.0) if epoch < 10 else vq(z_e)   # then k-means",
    names=("vq",),
    doc=__doc__,
    plan=plan,
)
