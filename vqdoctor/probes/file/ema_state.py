"""The EMA counts and sums beside the codebook: written, forgotten their start, in agreement."""

from __future__ import annotations

import numpy as np

from vqdoctor.core.evidence import EmaState
from vqdoctor.layouts.live_rows import RARE, chosen_lately, live_mask, never_written
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.ema_relation import SMOOTHINGS, far_above_smoothing
from vqdoctor.metrics.entropy import Floats
from vqdoctor.metrics.geometry import middle, row_norms
from vqdoctor.probes._ema_rows import EXACT, best, blurred, means_by_rule
from vqdoctor.probes.file._context import FileContext, each_layer
from vqdoctor.probes.file.code_expiry import FEWEST
from vqdoctor.probes.probe import Missing

KNOWN = 1e-6
"""Least weight of the start values at which a count still tells them: float32 holds seven digits."""
BELOW = 0.5
"""A count under this share of d^t did not start at one. Smoothing that is written back takes 1e-6 of it."""
GROWN = 3.0
"""A code has grown where it is this many times as long as a typical one in use. After 320 updates with decay
0.99 codes whose smoothed counts are written back measured 40; random starts are up to 3 times as long."""


def measure(context: FileContext, view: QuantizerView) -> EmaState:
    """Return a layer's EMA state."""
    if view.counts is None:
        raise Missing("the layer stores no EMA counts")
    if not np.isfinite(view.counts).all():
        raise Missing("EMA counts have non-finite values")
    counts = view.counts.astype(np.float64)
    gaps = _disagreement(view, counts)
    return EmaState(
        source="checkpoint",
        sample_size=len(counts),
        total=float(counts.sum()),
        count_min=float(counts.min()),
        count_max=float(counts.max()),
        never_written=never_written(view.counts),
        zero_counts=int(np.sum(counts <= RARE * counts.mean())),
        decay=context.saved.decay(view),
        updates=context.saved.record.updates,
        start_weight=context.saved.start_weight(view),
        sums_disagreement=middle(gaps) if gaps.size else None,
        worst_disagreement=float(gaps.max()) if gaps.size else None,
        compared_rows=len(gaps),
        means_spread=_means_spread(view, counts),
        blurred=blurred(view),
        from_zero=_from_zero(view, context.saved.start_weight(view)),
        divided_by_zero=_divided_by_zero(counts),
    )


def _from_zero(view: QuantizerView, start_weight: float | None) -> int:
    """Return how many codes have grown since their count started at zero and their sum did not."""
    if view.counts is None or view.sums is None or start_weight is None or start_weight < KNOWN:
        return 0
    if view.counts.sum(dtype=np.float64) < FEWEST:  # shares of the usage
        return 0
    norms, median, _ = live_mask(view)
    low = view.counts.astype(np.float64) < BELOW * start_weight
    return int(np.sum(low & view.sums.any(axis=1) & (norms > GROWN * median)))


def _divided_by_zero(counts: Floats) -> int:
    """Return how many counts [K] are next to zero, and no vector ever added to them.

    Such counts are equal, while those of codes that were left at one time or another differ. A code that was
    ever chosen is at most 1 / (1 - d) times too long. Equal counts above the smoothing may be a start of one
    that has shrunk along with its sum, which makes no code longer. Then a single code in use, which may lie
    anywhere, does not tell how long the others should be.
    """
    rare = counts <= RARE * counts.mean()
    least = counts.min()
    if least > SMOOTHINGS[0] and len(counts) - int(rare.sum()) < 2:
        return 0
    return int(np.sum(rare & (counts <= least * (1 + EXACT))))


def _disagreement(view: QuantizerView, counts: Floats) -> Floats:
    """|E − S/c| / |E| of the live codes, under the rule that agrees best.

    Codes that are rarely chosen are left out: there the smoothing decides, and health differs by several
    times.
    """
    used = chosen_lately(view.counts)
    if view.sums is None or used is None or not np.isfinite(view.sums).all():
        return np.zeros(0)
    compared = used & live_mask(view)[2] & far_above_smoothing(counts)
    if not compared.any():
        return np.zeros(0)
    codes = view.codebook[compared]
    lengths = row_norms(codes)
    by_rule = (
        row_norms(codes - means[compared]) / lengths for means in means_by_rule(view, counts, view.sums)
    )
    return best(by_rule, middle, enough=EXACT) if len(codes) else np.zeros(0)


def _means_spread(view: QuantizerView, counts: Floats) -> float | None:
    """Return how far the means of the codes in use lie apart, whatever the codebook holds."""
    used = chosen_lately(view.counts)
    if view.sums is None or used is None or not np.isfinite(view.sums).all():
        return None
    chosen = used & (counts > RARE * counts.mean())
    means = view.sums[chosen].astype(np.float64) / counts[chosen, None]
    length = float(np.sqrt(np.mean(means**2))) if means.size else 0.0
    return float(np.sqrt(np.mean((means - means.mean(0)) ** 2))) / length if length > 0 else None


PROBE = each_layer(EmaState, measure)
