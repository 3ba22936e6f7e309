"""Perplexity of a codebook's usage, with an interval that stays honest on correlated vectors.

Grassberger's estimator takes vectors for independent. The vectors of one image or clip are correlated,
and then it is biased low however many are drawn from few images. The bias shows: it grows when half of the
SAMPLES are left out. So the interval's upper end is extrapolated from all, half and a quarter of
the samples to infinitely many (Strong et al. 1998, "Entropy and Information in Neural Spike
Trains"), and its width comes from how much samples differ, never from how much vectors do.
"""

from __future__ import annotations

import numpy as np

from vqdoctor.core.frozen import frozen
from vqdoctor.metrics.counts import GroupedCounts
from vqdoctor.metrics.entropy import Floats, Ints, grassberger_entropy, plug_in_entropy, weighed
from vqdoctor.metrics.interval import Z, student

_PARTITIONS = 8
_MOST_DRAWN = 10**9  # numpy's multivariate hypergeometric takes fewer


@frozen
class Perplexity:
    """An estimate in codes, each between 1 and K.

    Attributes:
        value: Grassberger's estimate.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
        plug_in: exp of the plain entropy.
        effective_size: independent vectors that would be as informative; None with only
            one group.
    """

    value: float
    low: float
    high: float
    plug_in: float
    effective_size: float | None


def estimate(counts: GroupedCounts, seed: int = 0) -> Perplexity:
    """Estimate the perplexity behind `counts`.

    With a single group the difference between groups is unknown, so the interval is all of [1, K].

    >>> few = GroupedCounts.from_indices([0, 1, 2, 3] * 500, num_codes=16)
    >>> round(estimate(few).value, 2), round(estimate(few).high, 1)
    (4.0, 4.0)
    """
    ceiling = float(np.log(counts.num_codes))
    entropy = float(grassberger_entropy(counts.totals))
    effect = counts.design_effect()
    known = counts.num_groups > 1
    low, high = 0.0, ceiling
    if known:
        rng = np.random.default_rng(seed)
        spread = student(counts.num_groups - 1) * _deviation(counts, effect)
        low, high = entropy - spread, entropy + _missing_entropy(counts, entropy, effect, rng) + spread
    return Perplexity(
        value=_codes(entropy, ceiling),
        low=_codes(low, ceiling),
        high=_codes(high, ceiling),
        plug_in=_codes(float(plug_in_entropy(counts.totals)), ceiling),
        effective_size=counts.vectors / effect if known else None,
    )


def ema_interval(counts: Floats, vectors: float) -> tuple[float, float]:
    """Return a 95 % interval of the perplexity of EMA counts [K] worth `vectors` independent ones.

    Plug-in entropy with the delta method's deviation; the upper end adds the Miller–Madow bias.
    A file does not show how correlated the vectors were: this is the narrowest possible interval.
    """
    p = counts[counts > 0] / counts.sum()
    entropy = float(-np.sum(p * np.log(p)))
    bias = (len(p) - 1) / (2 * vectors)
    variance = (float(np.sum(p * np.log(p) ** 2)) - entropy**2) / vectors + bias / vectors
    spread = Z * float(np.sqrt(max(variance, 0.0)))
    ceiling = float(np.log(len(counts)))
    return _codes(entropy - spread, ceiling), _codes(entropy + bias + spread, ceiling)


def _codes(entropy: float, ceiling: float) -> float:
    return float(np.exp(min(max(entropy, 0.0), ceiling)))


def _deviation(counts: GroupedCounts, effect: float) -> float:
    """Standard deviation of the entropy, in nats, from how much the groups differ.

    First order: the groups' contributions to the entropy, each code weighted by −ln p (as Grassberger
    estimates it, without his alternation). On even usage these hardly differ; what is left is of second
    order, (K − 1) / 2N² for the plain entropy of N independent vectors. Grassberger's has up to twice
    that, which is what it measured at one vector per code.
    """
    totals, vectors, groups = counts.totals, counts.vectors, counts.num_groups
    surprise = np.log(vectors) + 1 - (weighed(totals + 1) - weighed(np.maximum(totals - 1, 0))) / 2
    mean = float(totals @ surprise) / vectors
    share = np.bincount(counts.group, weights=counts.count * surprise[counts.code], minlength=groups)
    excess = share - counts.sizes * mean
    first = groups / (groups - 1) * float(excess @ excess) / vectors**2
    second = effect**2 * (np.count_nonzero(totals) - 1) / vectors**2
    return float(np.sqrt(first + second))


def _missing_entropy(counts: GroupedCounts, whole: float, effect: float, rng: np.random.Generator) -> float:
    """How much entropy may be missing from `whole`, the estimate on all groups; at least 0."""
    half, quarter = _entropy_of_parts(counts, rng)
    linear = whole - half
    # The terms in 1/G and 1/G²; by how much they differ is what may lie beyond both.
    quadratic = (5 * whole - 6 * half + quarter) / 3 if quarter is not None else linear
    extrapolated = max(linear, quadratic, 0.0) + abs(quadratic - linear)
    return extrapolated + _hidden_entropy(counts, whole, effect)


def _entropy_of_parts(counts: GroupedCounts, rng: np.random.Generator) -> tuple[float, float | None]:
    """Mean entropy of random halves and, from four groups up, quarters of the groups."""
    parts = 4 if counts.num_groups >= 4 else 2
    merged = np.stack([_split(counts, parts, rng) for _ in range(_PARTITIONS)])
    halves = merged.reshape(_PARTITIONS, 2, parts // 2, -1).sum(axis=2)
    half = float(grassberger_entropy(halves).mean())
    return half, float(grassberger_entropy(merged).mean()) if parts == 4 else None


def _split(counts: GroupedCounts, parts: int, rng: np.random.Generator) -> Ints:
    """Counts of random parts of the groups, nearly equal in number: int64 [parts, K]."""
    groups = counts.num_groups
    if counts.vectors > groups or groups >= _MOST_DRAWN:
        return counts.merged((np.arange(groups) * parts // groups)[rng.permutation(groups)], parts)
    left, pieces = counts.totals, []  # one vector a group: the same without a pass over the groups
    for number in range(parts - 1):
        size = groups * (number + 1) // parts - groups * number // parts
        pieces.append(rng.multivariate_hypergeometric(left, size, method="marginals"))
        left = left - pieces[-1]
    return np.stack([*pieces, left])


def _hidden_entropy(counts: GroupedCounts, entropy: float, effect: float) -> float:
    """The most that the unseen mass adds: spread evenly over all codes that were not seen.

    One more independent vector is added to the mass: a sample never proves that nothing is unseen.
    """
    mass = min(counts.unseen_mass() + effect / counts.vectors, 1.0)
    unseen = int(np.count_nonzero(counts.totals == 0))
    if not unseen:
        return 0.0
    return mass * max(0.0, float(np.log(unseen / mass)) - entropy)
