"""The EMA counts against the count under which the training replaces a code."""

from __future__ import annotations

import numpy as np

from vqdoctor.core.evidence import CodeExpiry
from vqdoctor.layouts.live_rows import reset_to
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.entropy import Floats
from vqdoctor.probes._ema_rows import written_counts
from vqdoctor.probes.file._context import FileContext, each_layer
from vqdoctor.probes.probe import Missing

FEWEST = 2.0
"""Least sum of counts that are vectors; shares add up to one."""
_ROUND = 2
"""Decimals of a threshold that somebody typed. An EMA hardly ever lands on such a number."""


def measure(context: FileContext, view: QuantizerView) -> CodeExpiry:
    """Return the share of a layer's codes that is due to be replaced."""
    counts = written_counts(view)
    if counts is None:
        raise Missing("the layer has no EMA counts that were ever written")
    record = context.saved.record
    counted = float(counts.sum()) >= FEWEST  # shares of the usage add up to one, whatever the batch is
    per_epoch = record.updates / record.epochs if counted and record.updates and record.epochs else None
    threshold = reset_to(counts) or record.revival_threshold or _reset_value(view, counts)
    return CodeExpiry(
        source="checkpoint",
        sample_size=len(counts),
        vectors=float(counts.sum()),
        threshold=threshold,
        expired=None if threshold is None else float((counts <= threshold * (1 + 1e-6)).mean()),
        epoch_vectors=None if per_epoch is None else per_epoch * float(counts.sum()),
    )


def _reset_value(view: QuantizerView, counts: Floats) -> float | None:
    """The round number that several counts share: a revival gives its codes this count.

    The start value is such a number too, in codes that were never updated; it is left out. Counts tie for
    other reasons as well, at many values each: in half precision, and after a few updates.
    """
    if _in_half_precision(counts):
        return None
    values, times = np.unique(counts[counts > 0], return_counts=True)
    shared = (times > 1) & (values != (view.start_count or 1.0))
    typed = shared & (np.round(values, _ROUND) == values)
    if not typed.any() or times[typed].max() <= times[shared].sum() / 2:
        return None
    return float(values[typed][times[typed].argmax()])


def _in_half_precision(counts: Floats) -> bool:
    """Whether float16's 11 bits (bfloat16 has 8) hold every count exactly."""
    mantissas = np.frexp(counts)[0] * 2**11
    return bool((mantissas == np.round(mantissas)).all())


PROBE = each_layer(CodeExpiry, measure)
