"""The skill of a model at its task: above a guess, by z_e, and by the codes in its place."""

from __future__ import annotations

LOST = 0.2
"""Largest share of the skill with z_e that may be lost with the codes. Healthy digit models lost at most
0.006 of their accuracy and 0.014 of their reconstruction, codecs of waves 0.003; a classifier of sequences
lost 0.15 with 16 codes and 0.44 with 8, models whose codes had collapsed all of it."""
SKILL = 0.05
"""Least accuracy above chance, over its largest possible value, of a model that has learned (see VQ607)."""
WORTH = 1e-3
"""Least share of the task loss that z_e must be worth to a model which uses it at all."""


def reachable_loss(without_vq: float, one_code: float) -> float:
    """Return the task loss that a model with sound codes reaches, by the same model without VQ.

    Codes are coarser than z_e, so that some of the skill may be lost with them.

    Args:
        without_vq: task loss without VQ.
        one_code: task loss of that model with the mean vector in place of each z_e: no skill at all.
    """
    return without_vq + LOST * max(0.0, one_code - without_vq)


def uses_z_e(loss: float, one_code: float) -> bool:
    """Whether a model's task loss shows that z_e, or its codes, tell it anything.

    Args:
        loss: its task loss.
        one_code: that of the model without VQ with the mean vector in place of each z_e.
    """
    return loss < one_code - WORTH * abs(one_code)
