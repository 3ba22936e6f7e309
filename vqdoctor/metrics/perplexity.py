"""Perplexity of a codebook's usage, with an interval that stays honest on correlated vectors.

Grassberger's estimator takes vectors for independent. Those of one image or clip are not, and then
it is biased low however many are drawn from few images. The bias shows: it grows when half of the
SAMPLES are left out. So the interval's upper end is extrapolated from all, half and a quarter of
the samples to infinitely many (Strong et al. 1998, "Entropy and Information in Neural Spike
Trains"), and its width comes from a bootstrap over samples, never over vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vqdoctor.metrics.counts import GroupedCounts
from vqdoctor.metrics.entropy import Floats, grassberger_entropy, plug_in_entropy

_BOOTSTRAPS = 100
_PARTITIONS = 8
_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)  # 97.5 % points, 1 … 9 degrees


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """An estimate in codes, each between 1 and K.

    Attributes:
        value: Grassberger's estimate.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
        plug_in: exp of the plain entropy.
        effective_size: independent vectors that would be as informative; None where there is only
            one group, which tells nothing about it.
    """

    value: float
    low: float
    high: float
    plug_in: float
    effective_size: float | None


def estimate(counts: GroupedCounts, seed: int = 0) -> Perplexity:
    """Estimate the perplexity behind `counts`.

    With a single group nothing tells how groups differ, so the interval is all of [1, K].

    >>> few = GroupedCounts.from_indices([0, 1, 2, 3] * 500, num_codes=16)
    >>> round(estimate(few).value, 2), round(estimate(few).high, 1)
    (4.0, 4.0)
    """
    ceiling = float(np.log(counts.num_codes))
    entropy = float(grassberger_entropy(counts.totals))
    if counts.num_groups > 1:
        rng = np.random.default_rng(seed)
        spread = student(counts.num_groups - 1) * _bootstrap_deviation(counts, rng)
        low, high = entropy - spread, entropy + _missing_entropy(counts, entropy, rng) + spread
    else:
        low, high = 0.0, ceiling
    known = counts.num_groups > 1
    return Perplexity(
        value=_codes(entropy, ceiling),
        low=_codes(low, ceiling),
        high=_codes(high, ceiling),
        plug_in=_codes(float(plug_in_entropy(counts.totals)), ceiling),
        effective_size=counts.vectors / counts.design_effect() if known else None,
    )


def ema_interval(counts: Floats, vectors: float) -> tuple[float, float]:
    """Return a 95 % interval of the perplexity of EMA counts [K] worth `vectors` independent ones.

    Plug-in entropy with the delta method's deviation; the upper end adds the Miller–Madow bias.
    What a file cannot show is how correlated the vectors were; treat it as the narrowest possible.
    """
    p = counts[counts > 0] / counts.sum()
    entropy = float(-np.sum(p * np.log(p)))
    bias = (len(p) - 1) / (2 * vectors)
    variance = (float(np.sum(p * np.log(p) ** 2)) - entropy**2) / vectors + bias / vectors
    spread = 1.96 * float(np.sqrt(max(variance, 0.0)))
    ceiling = float(np.log(len(counts)))
    return _codes(entropy - spread, ceiling), _codes(entropy + bias + spread, ceiling)


def student(degrees: int) -> float:
    """Return the 97.5 % point of Student's t, to about 1 %.

    >>> student(4), round(student(30), 2), round(student(10**6), 2)
    (2.78, 2.04, 1.96)
    """
    if degrees <= len(_STUDENT):
        return _STUDENT[degrees - 1]
    return 1.96 + 2.37 / degrees + 2.82 / degrees**2  # Cornish–Fisher


def _codes(entropy: float, ceiling: float) -> float:
    return float(np.exp(min(max(entropy, 0.0), ceiling)))


def _bootstrap_deviation(counts: GroupedCounts, rng: np.random.Generator) -> float:
    """Standard deviation of the entropy over resamples of the groups."""
    groups = counts.num_groups
    draws = np.empty(_BOOTSTRAPS)
    for i in range(_BOOTSTRAPS):
        weight = np.bincount(rng.integers(0, groups, groups), minlength=groups)
        draws[i] = grassberger_entropy(counts.by_code(counts.count * weight[counts.group]))
    # A resample of G groups varies as if there were G - 1 of them.
    return float(draws.std(ddof=1) * np.sqrt(groups / (groups - 1)))


def _missing_entropy(counts: GroupedCounts, whole: float, rng: np.random.Generator) -> float:
    """How much entropy may be missing from `whole`, the estimate on all groups; at least 0."""
    half, quarter = _entropy_of_parts(counts, rng)
    linear = whole - half
    # The terms in 1/G and 1/G²; by how much they differ is what may lie beyond both.
    quadratic = (5 * whole - 6 * half + quarter) / 3 if quarter is not None else linear
    extrapolated = max(linear, quadratic, 0.0) + abs(quadratic - linear)
    return extrapolated + _hidden_entropy(counts, whole)


def _entropy_of_parts(counts: GroupedCounts, rng: np.random.Generator) -> tuple[float, float | None]:
    """Mean entropy of random halves and, from four groups up, quarters of the groups."""
    groups = counts.num_groups
    parts = 4 if groups >= 4 else 2
    level = np.arange(groups) * parts // groups
    halves, quarters = [], []
    for _ in range(_PARTITIONS):
        merged = counts.merged(level[rng.permutation(groups)], parts)
        if parts == 4:
            quarters.append(grassberger_entropy(merged).mean())
            merged = merged.reshape(2, 2, -1).sum(axis=1)
        halves.append(grassberger_entropy(merged).mean())
    return float(np.mean(halves)), float(np.mean(quarters)) if quarters else None


def _hidden_entropy(counts: GroupedCounts, entropy: float) -> float:
    """What the unseen mass adds at most: spread evenly over all codes that were not seen.

    One more independent vector is added to the mass: a sample never proves that nothing is unseen.
    """
    mass = min(counts.unseen_mass() + counts.design_effect() / counts.vectors, 1.0)
    unseen = int(np.count_nonzero(counts.totals == 0))
    if not unseen:
        return 0.0
    return mass * max(0.0, float(np.log(unseen / mass)) - entropy)
