"""The gradients before, in and after a VQ layer, as the optimizer's second moments remember them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from vqdoctor.core.evidence import Evidence, OptimizerMemory, Unavailable
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.geometry import Mask
from vqdoctor.probes.file._context import FileContext
from vqdoctor.probes.probe import Missing, Probe
from vqdoctor.saved.optimizer import Slot
from vqdoctor.saved.placement import PlacedSlot, Unplaced, is_unlisted, placed_slots

_SAMPLE = 1 << 14
_ADDED = 2e-30
"""Adafactor adds 1e-30 to each squared gradient, a row's mean of zeros included."""
_SAVE_IT = "save optimizer.state_dict() with the model"


def measure(context: FileContext) -> Iterator[Evidence | Unavailable]:
    """Yield the size of the file's optimizer states, then their evidence about each layer."""
    with_state = sum(bool(slot.state) for slot in context.saved.slots)
    yield OptimizerMemory(source="checkpoint", sample_size=with_state, parameters=len(context.saved.slots))
    for view in context.views:
        try:
            if not context.saved.optimizers:
                raise Unplaced("the file has no optimizer state")
            yield _memory(context, view)
        except Unplaced as reason:
            missing = Missing(str(reason), "" if with_state else _SAVE_IT)
            yield missing.gap(OptimizerMemory, view.name, "checkpoint")


def _memory(context: FileContext, view: QuantizerView) -> OptimizerMemory:
    placed = placed_slots(context.saved, view, context.views)
    before, after = _gradient(placed, "before"), _gradient(placed, "after")
    codebook = next((p.slot for p in placed if p.part == "codebook"), None)
    rows = untouched_rows(codebook, view) if codebook else None
    untouched = None if rows is None else int(rows.sum())
    # a slot whose alignments reach from before the codebook to after it might be the codebook
    unclear = any(p.part is None for p in placed)
    unlisted = is_unlisted(placed, context.saved, view, context.views)
    leaf = view.keys.get("codebook", "").rpartition(".")[2]
    return OptimizerMemory(
        layer=view.name,
        source="checkpoint",
        sample_size=sum(bool(p.slot.state) for p in placed),
        parameters=len(placed),
        before_gradient=before,
        after_gradient=after,
        ratio=before / after if before is not None and after else None,
        codebook_listed=True if codebook else None if unclear else False,
        # Adagrad makes its states before the first gradient.
        codebook_has_state=bool(codebook.state) and untouched != view.num_codes if codebook else None,
        codebook_untouched_rows=untouched,
        left_out=unlisted and (leaf == "weight" or leaf.isdigit()),
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
        squares += size * mean
    if not math.isfinite(squares):
        raise Unplaced("the optimizer state has non-finite values")
    return math.sqrt(squares / elements) if elements else None


def untouched_rows(slot: Slot, view: QuantizerView) -> Mask | None:
    """Return the codes [K] of which the state is exactly zero; None where it has no rows."""
    rows = row_memory(slot, view)
    return None if rows is None else np.asarray((rows == 0).all(axis=1))


def row_memory(slot: Slot, view: QuantizerView) -> NDArray[np.generic] | None:
    """Return the gradients that the state keeps of each code, [K, D] or [K, 1]; None without rows."""
    if slot.trace is None:
        return None
    if slot.trace.numel == view.num_codes and slot.shape == view.codebook.shape:
        rows = np.asarray(slot.trace.read(), np.float64).reshape(view.num_codes, 1)
        return np.where(rows <= _ADDED, 0, rows)
    if slot.trace.numel != view.num_codes * view.dim:
        return None
    moment = slot.trace.read()
    as_stored = tuple(n for n in slot.trace.shape if n > 1)
    if as_stored == (view.dim, view.num_codes) and view.dim != view.num_codes:
        moment = moment.reshape(view.dim, view.num_codes).T
    return moment.reshape(view.num_codes, view.dim)


PROBE = Probe(kinds=(OptimizerMemory,), measure=measure)
