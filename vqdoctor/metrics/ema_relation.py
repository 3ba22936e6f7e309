"""How a codebook stands to the means of its EMA: the form of the relation names its cause.

A sound EMA writes each code as E = S / c (van den Oord et al. 2017, appendix A.1), up to the smoothing of the
counts. Other rules leave another relation, and it is exact over all codes in use: E = a·S/c where a factor
was lost, E = S where the division is missing, E = a·c·S where it is a multiplication, E = S/(c + a) where a
number was added to the counts, E = S/(n + 1) where n counts the last batch alone, E = S/|S| where codes were
put on the unit sphere afterwards.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vqdoctor.core.frozen import frozen
from vqdoctor.metrics.geometry import Mask, Rows, middle, quantiles, relative_range, row_norms

SMOOTHINGS = (1e-5, 1e-6, 1e-7, 1e-10)
"""The epsilons that public EMA layers add to their counts, the largest first."""
FAR_ABOVE = 1000.0
"""A code is compared if its count is at least 1,000 times the largest usual smoothing, which then moves it
by 0.1 %."""
FITS = 0.02
"""Largest spread of the divisor |S| / |E| over the one that a rule gives. Float32 explains 1e-6, bfloat16
0.008; codes that were moved differ by tens of percent."""
WHOLE = 1e-3
"""A divisor within this distance of a whole number counts as one: by chance, one divisor in 500 does."""
FEWEST_WHOLE = 4
"""Least number of whole divisors above one that prove a rule: by chance that is one in 500, four times."""
IN_USE = 1e-3
"""A code is compared where its count is over this share of the mean count."""


Divisor = Literal["counts", "constant", "mean", "inverse", "added", "whole", ""]
"""The counts; the same number for all codes; their mean; one over the counts; the counts and the same number;
whole numbers, as one batch has them; or none of these."""


@frozen
class Relation:
    """The relation of codes E to their means S/c, over the codes that are compared.

    Attributes:
        compared: which codes are compared, bool [K].
        scale: median of |E| / |S/c|.
        scale_spread: interquartile range of |E| / |S/c|, over its median.
        cosine: the 5 % quantile of the cosine of E and S.
        count_power: slope of log(|E| / |S/c|) over log c: 0 if counts are divided by, 1 if E = S; 0 too if
            the counts hardly differ.
        sum_scale: median of |E| / |S|.
        divisor: what the sums are divided by, up to one factor: see `Divisor`.
        added: a where the sums are divided by c + a; else 0.
        code_norm: median |E|.
        code_norm_spread: interquartile range of |E|, over its median.
        mean_norm: median |S/c|.
    """

    compared: Mask
    scale: float
    scale_spread: float
    cosine: float
    count_power: float
    sum_scale: float
    divisor: Divisor
    added: float
    code_norm: float
    code_norm_spread: float
    mean_norm: float


def ema_relation(
    codes: Rows, counts: NDArray[np.float32], sums: Rows, chosen: Collection[int] = ()
) -> Relation | None:
    """Return how codes [K, D] stand to sums [K, D] over counts [K]; None where no code can be compared.

    Codes that are hardly ever chosen are left out: there the smoothing of the counts, which a file does not
    record, decides. So the result does not depend on it. With `chosen`, only these codes are compared.
    """
    c = counts.astype(np.float64)
    finite = np.isfinite(c) & np.isfinite(sums).all(axis=1) & np.isfinite(codes).all(axis=1)
    if not finite.any():
        return None
    e_norm, s_norm = row_norms(codes), row_norms(sums)
    compared = finite & (c > IN_USE * c[finite].mean()) & far_above_smoothing(counts)
    compared &= (e_norm > 0) & (s_norm > 0)
    if chosen:
        asked = np.zeros(len(c), dtype=np.bool_)  # np.isin loads numpy.ma, ten milliseconds
        asked[list(chosen)] = True
        compared &= asked
    if not compared.any():
        return None
    e, s, n = e_norm[compared], s_norm[compared], c[compared]
    dots = np.einsum("kd,kd->k", codes[compared], sums[compared], dtype=np.float64)
    scale = e * n / s
    logs = np.log(n) - np.log(n).mean()
    power = float(logs @ np.log(scale) / (logs @ logs)) if logs.std() > 0.1 else 0.0
    divisor, added = divisor_of(s / e, n)
    if divisor == "constant" and abs(middle(s / e) / c[finite].mean() - 1) <= FITS:
        divisor = "mean"
    return Relation(
        compared=np.asarray(compared),
        scale=middle(scale),
        scale_spread=relative_range(scale),
        cosine=float(quantiles(dots / (e * s), 0.05)[0]),
        count_power=power,
        sum_scale=middle(e / s),
        divisor=divisor,
        added=added,
        code_norm=middle(e),
        code_norm_spread=relative_range(e),
        mean_norm=middle(s / n),
    )


def divisor_of(divisors: NDArray[np.float64], counts: NDArray[np.float64]) -> tuple[Divisor, float]:
    """Return which rule gives the divisors [N] from the counts [N], the sound one first, and what it adds."""
    if relative_range(divisors / counts) <= FITS:
        return "counts", 0.0
    if relative_range(divisors) <= FITS:
        return "constant", 0.0
    if relative_range(divisors * counts) <= FITS:
        return "inverse", 0.0
    several = divisors > 2 - WHOLE
    whole = np.abs(divisors - np.round(divisors)) <= WHOLE
    if int(several.sum()) >= FEWEST_WHOLE and whole[several].mean() > 0.9 and whole.mean() > 0.9:
        return "whole", 0.0
    added = middle(divisors - counts)
    if added > 0 and relative_range(divisors / (counts + added)) <= FITS:
        return "added", added
    return "", 0.0


def far_above_smoothing(counts: NDArray[np.floating[Any]]) -> Mask:
    """Return which counts [K] are so large that no usual smoothing moves their codes, bool [K]."""
    return np.asarray(counts > FAR_ABOVE * SMOOTHINGS[0])
