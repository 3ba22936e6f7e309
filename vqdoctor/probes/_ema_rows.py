"""The code that the EMA statistics give: its sum over its count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vqdoctor.layouts.live_rows import RARE, is_unit, live_mask, never_written
from vqdoctor.layouts.view import Array, QuantizerView, once_a_view
from vqdoctor.metrics.ema_relation import SMOOTHINGS, far_above_smoothing
from vqdoctor.metrics.geometry import Mask, Rows, middle, row_norms, spread
from vqdoctor.metrics.match import nearest
from vqdoctor.vq.ema import divisor

Rule = TypeVar("Rule")
Key = TypeVar("Key", float, tuple[int, float])

AWAY = 0.1
"""A code is away when it is farther from its sum over count than this share of the codes' spread."""

ROUNDED, OF_16_BITS = 1e-4, 0.01
"""A code is its mean if no farther from it than this share of its length. Sound EMAs of float32 measured 1e-6
and less, averages of weights a median of 0.001 and more; numbers of 16 bits 0.006 at most."""
MOST_EXACT = 0.5
"""Share of codes in use that are their means, under which weights were averaged or coarsely rounded. Averages
measured 0 to 0.15, numbers of 8 bits 0.01, a sound EMA 1."""
NEAR_OWN = 0.9
"""Least share of codes in use whose nearest mean is their own. Averages of weights measured 0.94 to 1, codes
placed anew 0.01."""
EXACT = 1e-6
"""A rule is the library's own, and no other is asked, where the median code lies within this share of its
length from its mean: sixteen times the rounding of float32."""
LARGE_SMOOTHINGS = (1e-3, 1e-2)
"""Epsilons of home-made layers: with 0.01 rare codes lie 10 % off their means."""
ASKED = 512
"""Codes whose nearest mean is looked for: the share of 512 is known to 4 points, and what they cost grows
with K and not with its square."""


def written_counts(view: QuantizerView) -> NDArray[np.float64] | None:
    """Return the layer's EMA counts [K]; None where there are none, or not finite or never written."""
    if view.counts is None or not np.isfinite(view.counts).all() or never_written(view.counts):
        return None
    return view.counts.astype(np.float64)


@once_a_view
def ema_rows(view: QuantizerView) -> NDArray[np.float64] | None:
    """Return the sum over the count of every code, [K, D], under the rule that most codes agree with.

    None where the layout stores no sums, or they were never written, or a value is not finite.
    """
    counts, sums = written_counts(view), view.sums
    if counts is None or sums is None or not (np.isfinite(sums).all() and np.isfinite(view.codebook).all()):
        return None

    is_stale = _staleness(view)
    exact = EXACT * middle(row_norms(view.codebook))

    def disagreement(rows: NDArray[np.float64]) -> tuple[int, float]:
        return int(is_stale(rows).sum()), middle(row_norms(rows - view.codebook))

    return best(means_by_rule(view, counts, sums), disagreement, enough=(0, exact))


def best(rules: Iterable[Rule], key: Callable[[Rule], Key], enough: Key) -> Rule:
    """Return the rule with the least key, the first of several; none is asked after one that has `enough`.

    Args:
        rules: what each rule gives; at least one.
        key: how far it is from agreeing.
        enough: a key from which on a rule is the library's own.
    """
    found, least = None, None
    for rule in rules:
        reached = key(rule)
        if least is None or reached < least:
            found, least = rule, reached
        if least <= enough:
            break
    assert found is not None
    return found


def means_by_rule(
    view: QuantizerView, counts: NDArray[np.float64], sums: Array
) -> Iterator[NDArray[np.float64]]:
    """Yield the codes [K, D] that finite sums and counts give, by every rule that libraries follow.

    They are made one by one: of 262,144 codes of 64 dimensions each takes 134 MB. Libraries divide by the
    smoothed counts, with one of a few epsilons, whatever the layout says: copies change it. Some store the
    counts smoothed already, and a cosine codebook keeps only the direction of its mean.
    """
    whole = sums.astype(np.float64)
    smoothings = dict.fromkeys((view.smoothing or 0.0, 0.0, *SMOOTHINGS, *LARGE_SMOOTHINGS))
    divisors = [divisor(counts, smoothing) for smoothing in smoothings]
    norms, _, live = live_mask(view)
    if is_unit(norms, live):
        divisors.append(np.linalg.norm(whole, axis=1))
    return (whole / np.maximum(by, np.finfo(np.float32).tiny)[:, None] for by in divisors)


@once_a_view
def blurred(view: QuantizerView) -> bool:
    """Whether the codes in use lie near their own means and hardly any on it: nobody has moved them.

    An average of weights takes codes, sums and counts each by itself, and they need not agree. Numbers of 8
    bits round each by a few percent.
    """
    means = ema_rows(view)
    if means is None or view.counts is None:
        return False
    used = live_mask(view)[2] & far_above_smoothing(view.counts) & (view.counts > RARE * view.counts.mean())
    codes, means = view.codebook[used], means[used].astype(np.float32)
    if not len(codes):
        return False
    rounded = OF_16_BITS if _is_of_16_bits(codes) else ROUNDED
    exact = np.linalg.norm(codes - means, axis=1) <= rounded * row_norms(codes)
    if exact.mean() > MOST_EXACT:
        return False
    asked = np.linspace(0, len(codes) - 1, min(len(codes), ASKED), dtype=np.int64)
    return bool((nearest(codes[asked], means).indices == asked).mean() > NEAR_OWN)


def _is_of_16_bits(codes: Rows) -> bool:
    """Whether float32 numbers [N, D] are those of float16 or bfloat16, as of a file that was saved so."""
    with np.errstate(over="ignore"):
        half = codes.astype(np.float16).astype(np.float32)
    low = np.ascontiguousarray(codes, dtype=np.float32).view(np.uint32) & 0xFFFF
    return bool((half == codes).all() or not low.any())


def stale(view: QuantizerView, means: NDArray[np.float64]) -> Mask:
    """Return which codes are away from the given means, bool [K].

    The smoothing decides how long a rarely chosen code is. So such a code must have another direction, and it
    is not judged at all if the layout's smoothing is unknown.
    """
    return _staleness(view)(means)


def _staleness(view: QuantizerView) -> Callable[[NDArray[np.float64]], Mask]:
    """Return `stale` for means that several rules give: what the view alone tells is computed once."""
    live = live_mask(view)[2]
    bar = AWAY * (spread(view.codebook[live]) if live.any() else 0.0)
    far = None if view.counts is None else far_above_smoothing(view.counts)
    norms = row_norms(view.codebook)

    def stale_by(means: NDArray[np.float64]) -> Mask:
        away = row_norms(means - view.codebook) > bar
        if far is None:
            return np.asarray(away)
        if view.smoothing is None:
            return np.asarray(away & far)
        along = np.einsum("kd,kd->k", means, view.codebook, dtype=np.float64)
        aligned = along > (1 - AWAY**2) * row_norms(means) * norms
        return np.asarray(away & (far | ~aligned))

    return stale_by
