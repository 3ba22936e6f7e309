"""Usage as a file remembers it: by EMA counts that have forgotten their start, or by the last indices."""

from __future__ import annotations

import numpy as np

from vqdoctor.core.ema import ema_window
from vqdoctor.core.evidence import ACTIVE_SHARE, EMA_COUNTS, Usage
from vqdoctor.layouts.live_rows import RARE, never_written, reset_to
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.entropy import Floats, plug_in_entropy
from vqdoctor.metrics.expectation import expected_active, expected_used
from vqdoctor.metrics.geometry import histogram_quantiles
from vqdoctor.metrics.perplexity import ema_interval
from vqdoctor.probes._usage import usage_from_indices
from vqdoctor.probes.file._context import FileContext, each_layer
from vqdoctor.probes.file._index_window import index_window
from vqdoctor.probes.file.optimizer_memory import LONG_AGO, RECENT, ages_since_gradient
from vqdoctor.probes.probe import Missing
from vqdoctor.saved.placement import codebook_slot
from vqdoctor.vq.outlier import others

_FORGOTTEN = 0.05
"""Under this weight the start values no longer matter."""
_TOO_FRESH = 0.5
"""Above this d^t the first update still counts more than half as much as the last one: the counts
average over the whole training, its start included, and say little about the codebook as it is."""
_SHARES = 2.0
"""Counts with a smaller sum are shares of the usage, as a batch has more vectors; a revival that gives a code
the fair share makes it a little more than one. They do not say of how many vectors: taken are as many as
codes."""
_PACKED = 0.1
"""Share above the smallest count within which half of the codes are packed. In a converged EMA of decay 0.99,
with one vector per code and batch, a count has a standard deviation of 7 % (a Poisson count), and the middle
one of 64 lies 17 % above the smallest."""
_MOSTLY_FLOOR = 0.5
"""Share of the perplexity that is left above the smallest count; under it that count decides."""
_TIED = 1e-6
"""Codes that are never chosen go through the same arithmetic, to the last bits."""


class _Unknown(Missing):
    """The usage cannot be read from the counts."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, "--data FILE with z_e or indices, or with x and a task")


def votes(context: FileContext, view: QuantizerView) -> Floats:
    """Return how often each code was chosen, [K], as a layer's counts remember it.

    Raises:
        Missing: if the counts are missing, broken, never written, too close to their start, or a fix's.
    """
    if view.keys.get("counts") in context.saved.estimated_counts:
        raise _Unknown("its EMA counts were written by a fix, and no training has counted since")
    return without_start(view, context.saved.start_weight(view))


def without_start(view: QuantizerView, start_weight: float | None) -> Floats:
    """Return the counts [K] without what remains of their start value.

    A count never falls under c₀ · d^t, so the smallest one bounds what remains, whatever the file
    records or leaves out.

    Raises:
        _Unknown: if the counts are missing, broken, never written, or too close to their start.
    """
    if view.counts is None:
        raise _Unknown("the layer stores no EMA counts")
    if not np.isfinite(view.counts).all():
        raise _Unknown("EMA counts have non-finite values")
    if never_written(view.counts):
        raise _Unknown(f"EMA counts were never written: all are at {view.counts[0]:g}")
    if (threshold := reset_to(view.counts)) is not None:
        raise _Unknown(f"a revival sets the EMA counts of all codes to {threshold:g} at every step")
    counts = view.counts.astype(np.float64)
    least = float(counts.min())
    if least < 0:
        raise _Unknown("EMA counts are negative")
    start = view.start_count
    if start_weight is not None and (start is None or least >= 0.5 * start * start_weight):
        if start_weight > _TOO_FRESH or (start is None and start_weight > _FORGOTTEN):
            raise _Unknown(f"EMA counts not converged: their start still weighs {start_weight:.0%}")
        counts = counts - min((start or 0.0) * start_weight, least)
    counts = _without_floor(counts, start)
    if start_weight is None:
        _require_votes(counts, start)
    return counts


def _require_votes(counts: Floats, start: float | None) -> None:
    """Raise an `_Unknown` if what may remain of the start decides on the perplexity of `counts` [K].

    Nothing records how much that is, and a start from data adds a little to many codes, so that these are not
    equal. The smallest count bounds it. One code far above the others hides what these tell: then they
    must lie close to the smallest one as well.
    """
    least = float(counts.min())
    if least == 0 or (start is not None and least > start * (1 + _TIED)):
        return
    whole, above = (float(np.exp(plug_in_entropy(of))) for of in (counts, counts - least))
    rest = others(counts)
    packed = rest is None or float(np.median(rest)) <= least * (1 + _PACKED)
    if packed and above < _MOSTLY_FLOOR * whole:
        raise _Unknown(
            f"EMA counts may not be converged: their perplexity is {whole:.3g}, and that of what lies above "
            f"the smallest one, which their start may have left, is {above:.3g}"
        )


def _without_floor(counts: Floats, start: float | None) -> Floats:
    """Return `counts`, with codes that only share a floor set to zero.

    Codes that are chosen never have equal counts. Several at the very smallest one were not chosen:
    up to the start value, what they hold is a remainder of it, which then lies in every other count
    too; above it, a revival has just set them there.

    Raises:
        _Unknown: if that floor is a start value that is not forgotten yet.
    """
    least = float(counts.min())
    floor = counts <= least * (1 + _TIED)
    if least == 0 or floor.sum() < 2:
        return counts
    if start is not None and least > start * (1 + _TIED):
        return np.where(floor, 0.0, counts)
    if least > _FORGOTTEN * (counts.mean() if start is None else start):
        raise _Unknown(f"EMA counts not converged: {floor.sum()} codes still share the value {least:.3g}")
    return counts - least


def measure(context: FileContext, view: QuantizerView) -> Usage:
    """Return a layer's usage by its EMA counts, or by the window of its last indices."""
    if view.counts is None and (window := index_window(context.checkpoint, view)) is not None:
        return usage_from_indices(
            window,
            view.num_codes,
            layer=view.name,
            source="checkpoint",
            histogram=context.histogram,
            seed=context.seed,
        )
    if view.counts is None:
        raise _Unknown(f"the layer stores no EMA counts{_by_moments(context, view)}")
    return by_counts(context, view)


def _by_moments(context: FileContext, view: QuantizerView) -> str:
    """Return the codes in use by the optimizer's moments, behind a semicolon; "" without such moments."""
    slot = codebook_slot(context.saved, view, context.views)
    ages = None if slot is None else ages_since_gradient(slot, view)
    if ages is None:
        return ""
    least, most = (int(np.sum(ages <= updates)) for updates in (RECENT, LONG_AGO))
    told = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    codes = f"{told} of its {view.num_codes:,} codes were chosen lately (perplexity 1 to {most:,})"
    return f"; by the optimizer's moments {codes}"


def by_counts(context: FileContext, view: QuantizerView) -> Usage:
    """Return a layer's usage by its EMA counts."""
    counts = votes(context, view)
    total, codes = float(counts.sum()), len(counts)
    if total < _SHARES:
        counts, total = counts * (codes / total), float(codes)
    recorded = context.saved.decay(view)
    decay = view.default_decay if recorded is None else recorded
    batches = ema_window(decay) if decay is not None and decay < 1 else None
    vectors = max(1.0, total * (batches or 1.0))
    low, high = ema_interval(counts, vectors)
    plain = float(np.exp(plug_in_entropy(counts)))
    used = int(np.sum(counts > _least_vote(view, counts, recorded)))
    rest = others(counts)
    shared = counts if rest is None else rest
    return Usage(
        source="checkpoint",
        sample_size=max(1, round(total)),
        num_codes=codes,
        used=used,
        active=int(np.sum(counts > ACTIVE_SHARE * shared.mean())),
        expected_used=expected_used(codes, vectors),
        expected_active=expected_active(codes, round(vectors), ACTIVE_SHARE),
        share=used / codes,
        perplexity=plain,
        perplexity_low=low,
        perplexity_high=high,
        plug_in_perplexity=plain,
        estimator=EMA_COUNTS,
        max_share=float(counts.max() / total),
        rest_perplexity=None if rest is None else float(np.exp(plug_in_entropy(rest))),
        effective_size=vectors if batches else None,
        active_share=ACTIVE_SHARE,
        count_quantiles=histogram_quantiles(counts),
        histogram=tuple(float(c) for c in counts) if context.histogram else (),
        window=batches,
        assumed_decay=decay if recorded is None else None,
    )


def _least_vote(view: QuantizerView, counts: Floats, decay: float | None) -> float:
    """The count under which a code was not chosen within the window of the EMA.

    One vector at the window's end, 2 / (1 − d) updates ago, has left (1 − d) / e². Where the decay is
    unknown a rare count stands in. Smoothing that is written back leaves ε / (1 − d) in dead codes.
    """
    mean = float(counts.mean())
    if decay is None or decay >= 1:
        return RARE * mean
    one_vote = (1 - decay) * float(np.exp(-2))
    return max(one_vote, min(1.5 * (view.smoothing or 0.0) / (1 - decay), _FORGOTTEN * mean))


PROBE = each_layer(Usage, measure)
