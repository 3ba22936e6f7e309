"""Whether z_e keeps the scale of a raw input, beyond the reach of the codes; two checks ask it."""

from __future__ import annotations

from vqdoctor.core.evidence import DataMatch, FirstInput, WeightDecay

RAW = 30.0
"""Size (root mean square) of the first layer's input from which it counts as raw. Standardised inputs have 1,
images divided by 255 about 0.5, accelerations in m/s² 10; images of 0 to 255 have 100 to 150, decibels 50."""
BEYOND = 10.0
"""Size of z_e over the way that a code can have gone, from which no code reaches it."""

FEW = 2.5
"""Effective rank up to which an input, or z_e, has a few directions only: a single tone has two."""
HIDDEN = 2.0
"""Least growth of the effective rank by channels of standard deviation one that shows others behind the large
ones. Tables in raw units measured 4.0 to 7.1, the same standardised or behind a batch norm 1.0 to 1.1."""


def beyond(match: DataMatch, decay: WeightDecay) -> float | None:
    """Return the size of z_e over that of the codes and the way that they can have gone; None if unknown."""
    return None if decay.reach is None else match.data_rms / (match.codebook_rms + decay.reach)


def is_raw(
    match: DataMatch | None,
    decay: WeightDecay | None,
    first: FirstInput | None,
    raw: float = RAW,
    beyond: float = BEYOND,
) -> bool:
    """Whether the input keeps a large scale of its own, and z_e has it too, far from any code."""
    if match is None or first is None or decay is None or decay.reach is None:
        return False
    return first.rms >= raw and match.data_rms >= beyond * decay.reach


def hides_channels(first: FirstInput | None) -> bool:
    """Whether the scales of a few channels of the first layer's input hide the directions of the others."""
    if first is None or first.channel_rank is None or first.scaled_rank is None:
        return False
    return 0 < first.channel_rank < FEW and first.scaled_rank >= HIDDEN * first.channel_rank
