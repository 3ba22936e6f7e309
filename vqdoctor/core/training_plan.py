"""A training plan: how a model is retrained, as plain values that the remedies set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from vqdoctor.core.frozen import frozen

LIGHT = 0.1
"""The weight of the VQ loss that the remedies set where the user asks for none."""
Start = Literal["checkpoint", "fresh-encoder", "scratch", "without-vq"]
"""The start of a retraining: the checkpoint, the checkpoint with what leads to z_e built anew, a freshly
built model, or the same model as its training without VQ left it."""
Estimator = Literal["own", "straight-through", "rotation"]
Geometry = Literal["own", "unit-variance", "sphere"]


@frozen
class TrainingPlan:
    """How a model is retrained; without a remedy, the training goes on as the user's own would.

    Attributes:
        start: what it starts from.
        epochs: at most this many passes over the train split.
        further_epochs: the most epochs after these, as long as the task loss still falls.
        steps: optimizer steps of an epoch, which goes on where the one before it ended; 0 is a whole pass.
        seed: seed of everything that is drawn.
        vq_weight: weight of the VQ loss after the warm-up.
        balanced: whether that weight follows the gradients at z_e instead (see `training.trainer`).
        capped: whether that weight is the largest one: a VQ loss that would pull at z_e by more than a tenth
            of the task loss, as one that is summed over the dimensions does, gets less.
        warm_up_epochs: epochs over which the weight grows linearly; 0 is the full weight at once.
        estimators: layer to the gradient estimator that is put behind it; a layer that is not named keeps
            its own.
        data_init: whether k-means on z_e places the codebooks before the first step.
        revive_under: a code is revived under this multiple of 1/K of the running usage; 0 never.
        decay: EMA decay of the codebooks while they are retrained; None keeps the layer's own.
        geometry: the change of z_e before the lookup: none, unit variance, or unit length, in
            which case the codes have it too.
        full_precision: whether the VQ layer runs in float32 where the rest does not.
        linear: whether the codes move together, through one trained matrix (SimVQ), and not one by one.
        bypass_epochs: epochs at the start in which the layers are bypassed, before the codebooks are placed.
        sound_ema: whether a sound EMA rule writes the codes after each step, in place of the layer's own, and
            a commitment loss stands in for a VQ loss without a gradient.
        commitment: weight β of the commitment term that is added to the VQ loss at each layer; 0 adds none.
        moment_matching: whether all codes are moved towards the mean and the covariance of z_e.
        frozen_epochs: epochs at the start, after those without VQ, in which what leads to z_e is not trained.
        entropy_weight: weight of the entropy of the usage, which is taken off the loss; 0 is without it.
        exempt_codebook: whether the optimizer puts no weight decay on the codebooks.
        shuffled: whether the samples of the train batches are drawn anew for every epoch, in whatever order
            the task serves them.
        norm_momentum: momentum of the batch norms whose own is so small, or so large, that their running
            statistics follow no training; 0 leaves them as they are.
        usual_rate: whether learning rates above the usual ones are taken down to these.
        clip_norm: the largest norm of the gradients of a step; 0 leaves them as they are. A step whose
            gradients are not finite is then left out.
        calibrated: whether the class scores are divided by a temperature after the last epoch.
    """

    start: Start = "checkpoint"
    epochs: int = 50
    further_epochs: int = 0
    steps: int = 0
    seed: int = 0
    vq_weight: float = 1.0
    balanced: bool = False
    capped: bool = False
    warm_up_epochs: int = 0
    estimators: Mapping[str, Estimator] = field(default_factory=dict)
    data_init: bool = False
    revive_under: float = 0.0
    decay: float | None = None
    geometry: Geometry = "own"
    full_precision: bool = False
    linear: bool = False
    bypass_epochs: int = 0
    sound_ema: bool = False
    commitment: float = 0.0
    moment_matching: bool = False
    frozen_epochs: int = 0
    entropy_weight: float = 0.0
    exempt_codebook: bool = False
    shuffled: bool = False
    norm_momentum: float = 0.0
    usual_rate: bool = False
    clip_norm: float = 0.0
    calibrated: bool = False


@frozen
class PlanOptions:
    """The options by which a remedy sets its part of a training plan.

    Attributes:
        layers: the layers on which a finding asks for the remedy; all of them without such a finding.
        asked: whether a finding asks for the remedy, and not the recipe alone.
        vq_weight: the weight of the VQ loss that the user asks for; None leaves it to the remedies.
        balanced: whether the user asks for a weight that follows the gradients.
        warm_up_epochs: the length of the warm-up that the user asks for.
        epochs: the most epochs that the user asks for; None leaves them to the remedies.
        most_epochs: how far a training goes on that would end while the task loss still falls.
    """

    layers: tuple[str, ...]
    asked: bool = False
    vq_weight: float | None = None
    balanced: bool = False
    warm_up_epochs: int = 10
    epochs: int | None = None
    most_epochs: int = 0
