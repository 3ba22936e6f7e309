"""How far an optimizer can have moved a code, beside the size of the vectors that it should reach."""

from __future__ import annotations

from vqdoctor.core.evidence import DataMatch, FirstInput, WeightDecay

RAW = 30.0
"""Size (root mean square) of the first layer's input from which it counts as raw. Standardised inputs have 1,
images divided by 255 about 0.5, accelerations in m/s² 10; images of 0 to 255 have 100 to 150, decibels 50."""
BEYOND = 10.0
"""Size of z_e over the way that a code can have gone, from which no code reaches it."""


def reach(decay: WeightDecay | None) -> float | None:
    """Return the longest way of one number of a code: a step of Adam is at most about its learning rate.

    Kingma & Ba 2015, arXiv:1412.6980, section 2.1. None where the rate or the updates are unknown.
    """
    if decay is None or decay.learning_rate is None or not decay.updates:
        return None
    return decay.learning_rate * decay.updates


def is_raw(
    match: DataMatch | None,
    decay: WeightDecay | None,
    first: FirstInput | None,
    raw: float = RAW,
    beyond: float = BEYOND,
) -> bool:
    """Whether the input keeps a large scale of its own, and z_e has it too, far from any code."""
    way = reach(decay)
    if match is None or first is None or way is None:
        return False
    return first.rms >= raw and match.data_rms >= beyond * way
