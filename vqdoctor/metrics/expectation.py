"""The usage of a perfectly even codebook on a sample of this size: the baseline of any usage."""

from __future__ import annotations

import math

import numpy as np

_CERTAIN = 40.0
"""Chernoff's bound of the other case is exp(-40) here, less than the last bit of a float.

P(count ≤ s·m) ≤ exp(−m (s ln s + 1 − s)) for a Binomial of mean m, and likewise above the mean: Mitzenmacher
and Upfal, Probability and Computing, theorem 4.4. So the sum below never has many terms, whatever number of
vectors a file claims.
"""
_MOST_TERMS = 1_000_000
"""Only a share close to 1 leaves more: the normal approximation is then right to three digits."""


def expected_used(num_codes: int, vectors: float) -> float:
    """Return K (1 − (1 − 1/K)^N): codes that N even, independent draws choose at least once.

    >>> round(expected_used(256, 256), 1), round(expected_used(256, 1024), 1)
    (162.0, 251.3)
    """
    if num_codes == 1:
        return float(vectors > 0)
    return num_codes * -math.expm1(vectors * math.log1p(-1 / num_codes))


def expected_active(num_codes: int, vectors: int, active_share: float) -> float:
    """Return K · P(count > active_share · N / K), where count is Binomial(N, 1/K).

    >>> round(expected_active(256, 256, 0.1), 1)  # on one vector per code, active is just used
    162.0
    """
    if num_codes == 1:
        return float(vectors > 0 and active_share < 1)
    mean = vectors / num_codes
    sure = 1 - active_share + (active_share * math.log(active_share) if active_share > 0 else 0.0)
    if mean * sure > _CERTAIN:
        return float(num_codes if active_share < 1 else 0)
    most = min(math.floor(active_share * mean), vectors)
    if most > _MOST_TERMS:
        steps_away = (active_share - 1) * math.sqrt(mean / (1 - 1 / num_codes))
        return num_codes * 0.5 * math.erfc(steps_away / math.sqrt(2))
    # log P(count = j) by the ratio (N − j + 1) / j · p / (1 − p) of neighbouring terms.
    j = np.arange(1, most + 1, dtype=np.float64)
    steps = np.log((vectors - j + 1) / j) - math.log(num_codes - 1)
    logs = vectors * math.log1p(-1 / num_codes) + np.concatenate(([0.0], np.cumsum(steps)))
    return num_codes * max(0.0, 1.0 - float(np.exp(logs).sum()))
