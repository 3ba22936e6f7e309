"""The gradients before, in and after a VQ layer, as the optimizer's second moments remember them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from vqdoctor.checkpoint import LazyTensor
from vqdoctor.core.evidence import Evidence, OptimizerMemory, Unavailable
from vqdoctor.layouts.live_rows import never_written
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.geometry import Mask
from vqdoctor.probes.file._context import FileContext
from vqdoctor.probes.probe import Missing, Probe
from vqdoctor.saved.optimizer import Slot
from vqdoctor.saved.placement import PlacedSlot, Unplaced, is_unlisted, placed_slots

RECENT, LONG_AGO = 100, 400
"""Updates since the last gradient. Codes in use measured 7 to 70, those out of use 550 and more: the bound is
hardly ever in between."""
_LEAST_LEFT = 1e-30
"""Least share of a mean gradient that 400 updates may leave; float32 rounds less than 1e-45 to zero."""
_SAMPLE = 1 << 14
_ADDED = 2e-30
"""Adafactor adds 1e-30 to each squared gradient, a row's mean of zeros included."""
_SAVE_IT = "save optimizer.state_dict() with the model"


def measure(context: FileContext) -> Iterator[Evidence | Unavailable]:
    """Yield the size of the file's optimizer states, then their evidence about each layer."""
    with_state = sum(bool(slot.state) for slot in context.saved.slots)
    yield OptimizerMemory(
        source="checkpoint",
        sample_size=with_state,
        parameters=len(context.saved.slots),
        before_with_state=_before_with_state(context) if with_state else None,
    )
    for view in context.views:
        try:
            if not context.saved.optimizers:
                raise Unplaced("the file has no optimizer state")
            yield _memory(context, view)
        except Unplaced as reason:
            missing = Missing(str(reason), "" if with_state else _SAVE_IT)
            yield missing.gap(OptimizerMemory, view.name, "checkpoint")


def _before_with_state(context: FileContext) -> float | None:
    """Return the share of the numbers before the first layer that have a state; None where it is unclear."""
    try:
        placed = placed_slots(context.saved, context.views[0], context.views) if context.views else []
    except Unplaced:
        return None
    sizes = [(math.prod(p.first.shape), bool(p.slot.state)) for p in placed if p.part == "before"]
    total = sum(size for size, _ in sizes)
    return sum(size for size, held in sizes if held) / total if total else None


def _memory(context: FileContext, view: QuantizerView) -> OptimizerMemory:
    placed = placed_slots(context.saved, view, context.views)
    before, after = _gradient(placed, "before"), _gradient(placed, "after")
    codebook = next((p.slot for p in placed if p.part == "codebook"), None)
    rows = untouched_rows(codebook, view) if codebook else None
    untouched = None if rows is None else int(rows.sum())
    # Adagrad makes its states before the first gradient.
    has_state = bool(codebook.state) and untouched != view.num_codes if codebook else None
    ages = ages_since_gradient(codebook, view) if codebook else None
    if not has_state and view.name in context.saved.record.codes_by_ema:
        has_state = untouched = ages = None  # an EMA of vqdoctor's moved these codes, and the source may not
    # a slot whose alignments reach from before the codebook to after it might be the codebook
    unclear = any(p.part is None for p in placed)
    unlisted = is_unlisted(placed, context.saved, view, context.views)
    return OptimizerMemory(
        layer=view.name,
        source="checkpoint",
        sample_size=sum(bool(p.slot.state) for p in placed),
        parameters=len(placed),
        before_gradient=before,
        after_gradient=after,
        ratio=before / after if before is not None and after else None,
        codebook_listed=True if codebook else None if unclear else False,
        codebook_has_state=has_state,
        codebook_untouched_rows=untouched,
        recent_codes=None if ages is None else int(np.sum(ages <= RECENT)),
        recent_codes_high=None if ages is None else int(np.sum(ages <= LONG_AGO)),
        left_out=unlisted and _is_a_parameter(view),
        unlisted=unlisted,
        weight_decay=codebook.weight_decay if codebook else None,
        contradicted=any(p.first.contradicted for p in placed),
    )


def _gradient(placed: Sequence[PlacedSlot], part: str) -> float | None:
    """Root mean square gradient of the parameters in that part; one without a state never had any.

    None where there are none, or a state keeps no squared gradients.

    Raises:
        Unplaced: if a parameter may lie in that part or not, or a state has non-finite values.
    """
    squares, elements = 0.0, 0
    for p in placed:
        if p.part is None and part in (p.first.part, p.last.part):
            raise Unplaced(f"the optimizer's parameters fit the model's in several ways ({p.first.name} …)")
        if p.part != part:
            continue
        size = math.prod(p.first.shape)
        elements += size
        mean = p.slot.mean_square(_SAMPLE) if p.slot.state else 0.0
        if mean is None:
            return None  # SGD and Lion keep the mean gradient, in which noise cancels
        if mean < 0:
            raise Unplaced("the optimizer state has negative squares")
        squares += size * mean
    if not math.isfinite(squares):
        raise Unplaced("the optimizer state has non-finite values")
    return math.sqrt(squares / elements) if elements else None


def _is_a_parameter(view: QuantizerView) -> bool:
    """Return whether a codebook is a weight, in an nn.ParameterList, or beside counts that no EMA ever wrote.

    Any other table may be a buffer that follows an EMA which is not saved.
    """
    leaf = view.keys.get("codebook", "").rpartition(".")[2]
    return leaf == "weight" or leaf.isdigit() or (view.counts is not None and never_written(view.counts))


def untouched_rows(slot: Slot, view: QuantizerView) -> Mask | None:
    """Return the codes [K] of which the state is exactly zero; None where it has no rows."""
    rows = row_memory(slot, view)
    return None if rows is None else np.asarray((rows == 0).all(axis=1))


def ages_since_gradient(slot: Slot, view: QuantizerView) -> NDArray[np.float64] | None:
    """Return how many updates ago each code [K] had its last gradient, at most; infinite where it never had.

    Without a gradient Adam's moments shrink at each update, the mean m by beta1, the mean square v by beta2.
    By Cauchy's inequality |m| / sqrt(v) is at most (1 - beta1) / sqrt((1 - beta2) (1 - beta1^2 / beta2))
    right after a gradient, and (beta1 / sqrt(beta2))^a times that a updates later. It is less where gradients
    of several updates cancel each other, so a code is younger than its bound, by 30 updates as a rule.

    Returns:
        None where the optimizer keeps no two moments of each code, forgets one too soon, or took too few
        updates.
    """
    mean, square, beta1, beta2 = slot.mean_gradient, slot.moment, slot.beta1, slot.beta2
    if mean is None or square is None or beta1 is None or beta2 is None or slot.steps < 2 * LONG_AGO:
        return None
    if (
        not _LEAST_LEFT < beta1**LONG_AGO < beta2**LONG_AGO < 1
        or not mean.numel == square.numel == view.num_codes * view.dim
    ):
        return None
    means, squares = (np.asarray(_by_row(tensor, view), dtype=np.float64) for tensor in (mean, square))
    if not (np.isfinite(means).all() and np.isfinite(squares).all() and squares.min() >= 0):
        return None
    size, power = np.linalg.norm(means, axis=1), np.sqrt(squares.sum(axis=1))
    most = (1 - beta1) / math.sqrt((1 - beta2) * (1 - beta1**2 / beta2))
    ages = np.full(view.num_codes, np.inf)
    told = (size > 0) & (power > 0)
    ages[told] = np.log(most * power[told] / size[told]) / -math.log(beta1 / math.sqrt(beta2))
    return ages


def row_memory(slot: Slot, view: QuantizerView) -> NDArray[np.generic] | None:
    """Return the gradients that the state keeps of each code, [K, D] or [K, 1]; None without rows."""
    if slot.trace is None:
        return None
    if slot.trace.numel == view.num_codes and slot.shape == view.codebook.shape:
        rows = np.asarray(slot.trace.read(), np.float64).reshape(view.num_codes, 1)
        return np.where(rows <= _ADDED, 0, rows)
    return _by_row(slot.trace, view) if slot.trace.numel == view.num_codes * view.dim else None


def _by_row(tensor: LazyTensor, view: QuantizerView) -> NDArray[np.generic]:
    """Return a moment of K · D elements as [K, D]."""
    moment = tensor.read()
    as_stored = tuple(n for n in tensor.shape if n > 1)
    if as_stored == (view.dim, view.num_codes) and view.dim != view.num_codes:
        moment = moment.reshape(view.dim, view.num_codes).T
    return moment.reshape(view.num_codes, view.dim)


PROBE = Probe(kinds=(OptimizerMemory,), measure=measure)
