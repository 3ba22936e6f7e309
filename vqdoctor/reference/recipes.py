"""The faults as data: each is the recipe of a training, and a few switches from health.

Nothing is damaged afterwards: a sick checkpoint is what the switched training really yields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from types import MappingProxyType

from vqdoctor.core.frozen import frozen


@frozen
class Recipe:
    """All switches of the reference model and of its training; the defaults are the healthy ones.

    Attributes:
        num_codes: codes in the codebook, K.
        dim: dimension of a code, D.
        decay: EMA decay.
        use_vq: whether there is a VQ layer at all.
        straight_through: whether the gradient of z_q is copied to z_e.
        vq_weight: weight of the VQ loss after the warm-up.
        reconstruction_weight: weight of the reconstruction's MSE beside the cross-entropy.
        data_init: whether k-means on z_e places the codebook.
        data_init_epoch: the epoch before which it does; 0 is before the first step.
        warm_up_epochs: epochs over which the VQ loss's weight grows linearly.
        revive_under: codes under this multiple of 1/K of an epoch's usage are revived after the
            epoch; 0 never.
        epochs: epochs of training.
        batch_size: images a batch.
        learning_rate: Adam's learning rate.
        quantizer: the VQ layer: "ema"; or "unnormalised" and "sphere" (see `unsound`), and their sound twins
            "unnormalised-sound" and "sphere-sound".
        clip_gradients: largest norm of all gradients together; 0 clips none.
    """

    num_codes: int = 256
    dim: int = 64
    decay: float = 0.99
    use_vq: bool = True
    straight_through: bool = True
    vq_weight: float = 0.1
    reconstruction_weight: float = 3.0
    data_init: bool = True
    data_init_epoch: int = 0
    warm_up_epochs: int = 10
    revive_under: float = 0.1
    epochs: int = 50
    batch_size: int = 25
    learning_rate: float = 2e-3
    quantizer: str = "ema"
    clip_gradients: float = 0.0

    def config(self, seed: int) -> dict[str, int | float | bool]:
        """Return the settings that a checkpoint records, as a user's training script would.

        Switches that came after the first samples are recorded where they are used.
        """
        settings = {**asdict(self), "seed": seed}
        for name in ("quantizer", "clip_gradients"):
            if settings[name] == getattr(HEALTHY, name):
                del settings[name]
        return settings


HEALTHY = Recipe()
PLAIN = replace(HEALTHY, data_init=False, warm_up_epochs=0, revive_under=0.0)
"""Without the remedies: a codebook from N(0, 1) and the full weight from the first step."""

FIRST = replace(HEALTHY, decay=0.95, batch_size=32, clip_gradients=1.0)
"""The recipe as the model that this project began with was trained by it."""

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "no-vq": replace(HEALTHY, use_vq=False),
        "healthy-256": HEALTHY,
        "healthy-512": replace(HEALTHY, num_codes=512),
        # the healthy twin of "overweighted": the same weight, on a codebook that stands in the data
        "heavy-but-healthy": replace(HEALTHY, vq_weight=100.0, warm_up_epochs=0),
        "no-ste": replace(PLAIN, straight_through=False),
        # 100 times the plain sum of the losses
        "overweighted": replace(PLAIN, vq_weight=100.0),
        "stalled-ema": replace(PLAIN, decay=0.9999),
        # a good start, once the encoder has taken its first steps; the codes that it leaves behind stay there
        "dead-codes": replace(PLAIN, num_codes=1024, data_init=True, data_init_epoch=1, vq_weight=0.2),
        # the plain sum and a slow EMA leave a handful of codes; the average over 16 positions hides it
        "masked": replace(PLAIN, vq_weight=1.0, decay=0.999),
        # the whole recipe around an EMA whose counts lose their total, and around codes on a sphere that
        # vectors do not lie on: the model that this project began with
        "unnormalised-ema": replace(FIRST, quantizer="unnormalised"),
        "sphere-codes": replace(FIRST, quantizer="sphere"),
        "unnormalised-ema-sound": replace(FIRST, quantizer="unnormalised-sound"),
        "sphere-codes-sound": replace(FIRST, quantizer="sphere-sound"),
    }
)
ON_MOTION = ("unnormalised-ema", "sphere-codes")
"""The shipped recipes that are trained on the motion-sensor windows, as the first model was."""
SAMPLES = (
    "healthy-256", "healthy-512", "no-ste", "overweighted", "stalled-ema", "dead-codes", "masked", *ON_MOTION
)  # fmt: skip
"""The recipes whose checkpoints are shipped."""
