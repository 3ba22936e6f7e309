"""Whether a VQ loss is a sum, by its weight at z_e: beta for a mean, beta times its size for a sum."""

import math

from vqdoctor.core.evidence import LossTerms

FACTOR = 2.0
"""Factor within which the weight at z_e must meet beta times D: single layers and residual levels meet it
to 1 %, levels that are given the same z_e measured up to 1.8 times beta."""
BETA_LOW = 0.1
"""Smallest beta that is assumed where beta is unknown; below it a sum looks like a mean of large weight."""
BETA_HIGH = 2.0
"""Largest beta that is assumed where beta is unknown: published trainings use 0.1 to 2, most 0.25 or 1."""


def weight_told(terms: LossTerms) -> float | None:
    """Return the weight that tells a sum: that at z_e, or where that has another form, at the codebook."""
    return terms.codebook if terms.commitment is None else terms.commitment


def _swapped(terms: LossTerms, beta: float, factor: float) -> bool:
    """Whether beta weighs the codebook's term in place of z_e's (VQ203), so that z_e's has weight 1."""
    if not terms.commitment or not terms.codebook:
        return False
    ratio = math.log(terms.commitment / terms.codebook)
    return abs(ratio + math.log(beta)) <= math.log(factor) < abs(ratio - math.log(beta))


def summed(
    terms: LossTerms, factor: float = FACTOR, beta_low: float = BETA_LOW, beta_high: float = BETA_HIGH
) -> tuple[str, int] | None:
    """Return the axes that a VQ loss is summed over and how many values these are; None for a mean."""
    sizes = (("dimensions", terms.dim), ("vectors and dimensions", terms.dim * terms.sample_size))
    weight = weight_told(terms)
    if weight is None:
        return None
    if terms.commitment is None:  # the codebook's term has weight 1, or beta where the terms are swapped
        low, high, most = min(terms.beta or 1.0, 1.0) / factor, factor, factor
    elif terms.beta:
        meant = 1.0 if _swapped(terms, terms.beta, factor) else terms.beta
        low, high = meant / factor, meant * factor
        most = max(high, factor)
    else:
        low, high, most = beta_low, beta_high, beta_high
    for what, size in sizes:
        if low * size <= weight <= high * size and weight > most:
            return what, size
    return None
