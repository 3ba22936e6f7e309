"""How codes stand to the means of their EMA: which rule left that relation. Three checks must agree on it."""

from __future__ import annotations

from vqdoctor.core.evidence import EmaRelation, LookupScale

EXACT = 0.02
"""Largest spread of |E| / |S/c| that counts as one and the same factor. Smoothing and float32 explain 0.001,
bfloat16 0.008; codes that were moved differ by tens of percent."""
ALIGNED = 0.999
"""Least cosine of E and S that counts as the same direction. Float32 measured 1 - 1e-15, bfloat16 0.99999."""
ONE_LENGTH = 1e-3
"""Largest spread of |E| that counts as one length. Normalised codes measured 5e-8, others 0.08 and more."""
OFF = 0.1
"""Least difference of |E| / |S/c| from 1 that counts. Sound layers measured 7e-5; a smoothing of 1e-5 over
16,384 codes and 16 vectors per batch explains 0.01."""
ADDED = 0.1
"""Largest number of vectors that an update adds to each count for smoothing. Public layers add up to 1e-5."""
LONGER = 0.1
"""Least share by which means are longer than codes of one length. The mean of vectors of that length is never
longer, so the vectors are on another scale."""


def lost_total(relation: EmaRelation, exact: float = EXACT) -> bool:
    """Whether every code is as many times too long as there are vectors in a batch."""
    return relation.total > 0 and abs(relation.scale / relation.total - 1) <= exact


def total_twice(relation: EmaRelation, exact: float = EXACT) -> bool:
    """Whether every code is as many times too short as there are vectors in a batch."""
    return abs(relation.scale * relation.total - 1) <= exact


SHARES = 0.01
"""Largest distance of the sum of the counts from one at which they are shares. Other EMA counts add up to the
vectors of a batch."""
TOO_LONG = 10.0
"""Least factor by which codes are longer than the vectors that choose them that no drift explains. Four
sample layers with a sound EMA measured 1.002 to 1.005; runaways of z_e make codes shorter, and not longer."""


def shares_of_sums(relation: EmaRelation, scale: LookupScale, times: float = TOO_LONG) -> bool:
    """Whether counts that add up to one divide sums that add up vectors: codes are too long by a batch.

    The file agrees with itself then, since the counts were stored as they were normalised.
    """
    return abs(relation.total - 1) <= SHARES and 0 < scale.factor * times < 1


def undivided(relation: EmaRelation, exact: float = EXACT) -> bool:
    """Whether the codes are the sums themselves: counts differ, and nothing divides by them."""
    is_sum = abs(relation.sum_scale - 1) <= exact and abs(relation.count_power - 1) <= exact
    return relation.sample_size > 1 and relation.cosine >= ALIGNED and is_sum


def other_divisor(relation: EmaRelation) -> bool:
    """Whether the sums are divided by something else than the counts, whose form is known."""
    if relation.sample_size < 2 or relation.cosine < ALIGNED or relation.code_norm_spread <= ONE_LENGTH:
        return False
    return relation.divisor in ("constant", "mean", "inverse", "whole") or relation.added > ADDED


def one_factor(relation: EmaRelation, exact: float = EXACT, off: float = OFF) -> bool:
    """Whether all codes are their means times one factor, which is not 1.

    Codes of one length tell it only where the factor is the total: else they may have been normalised.
    """
    if relation.cosine < ALIGNED or relation.scale_spread > exact or abs(relation.scale - 1) <= off:
        return False
    if lost_total(relation, exact) or total_twice(relation, exact):
        return True
    return relation.sample_size > 1 and relation.code_norm_spread > ONE_LENGTH


def on_sphere_alone(relation: EmaRelation, longer: float = LONGER) -> bool:
    """Whether the codes have one length and the vectors, whose means are longer, do not.

    A cosine lookup compares directions, and lengths do not matter.
    """
    if relation.sample_size < 2 or relation.lookup not in ("", "euclidean") or one_factor(relation):
        return False
    one_length = relation.code_norm_spread <= ONE_LENGTH and relation.cosine >= ALIGNED
    return one_length and relation.mean_norm > (1 + longer) * relation.code_norm


def vectors_on_sphere_alone(scale: LookupScale, longer: float = LONGER) -> bool:
    """Whether the vectors that are looked up have one length, and the codes that they choose are longer.

    The mean of such vectors is never longer than they are.
    """
    return scale.vector_spread <= ONE_LENGTH and scale.code_norm > (1 + longer) * scale.vector_norm


def broken(relation: EmaRelation | None) -> bool:
    """Whether codes and vectors are on different scales, by whichever rule."""
    rules = (one_factor, undivided, other_divisor, on_sphere_alone)
    return relation is not None and any(rule(relation) for rule in rules)
