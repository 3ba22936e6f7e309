"""The gradients before, in and after a VQ layer, as the optimizer's second moments remember them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from vqdoctor.core.evidence import Evidence, OptimizerMemory, Unavailable
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.probes.file._context import FileContext
from vqdoctor.probes.probe import Missing, Probe
from vqdoctor.saved.optimizer import Slot
from vqdoctor.saved.placement import PlacedSlot, Unplaced, placed_slots

_SAMPLE = 1 << 14
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
    # a slot whose alignments reach from before the codebook to after it might be the codebook
    unclear = any(p.part is None for p in placed)
    return OptimizerMemory(
        layer=view.name,
        source="checkpoint",
        sample_size=sum(bool(p.slot.state) for p in placed),
        parameters=len(placed),
        before_gradient=before,
        after_gradient=after,
        ratio=before / after if before is not None and after else None,
        codebook_listed=True if codebook else None if unclear else False,
        codebook_has_state=bool(codebook.state) if codebook else None,
        codebook_untouched_rows=_untouched_rows(codebook, view) if codebook else None,
        weight_decay=codebook.weight_decay if codebook else None,
        contradicted=any(p.first.contradicted for p in placed),
    )


def _gradient(placed: Sequence[PlacedSlot], part: str) -> float | None:
    """Root mean square gradient of the parameters in that part; one without a state never had any.

    Raises:
        Unplaced: if a parameter may lie in that part or not, or a state holds no second moment.
    """
    squares, elements = 0.0, 0
    for p in placed:
        if p.part is None and part in (p.first.part, p.last.part):
            raise Unplaced(f"the optimizer's parameters fit the model's in several ways ({p.first.name} …)")
        if p.part != part:
            continue
        size = math.prod(p.first.shape)
        elements += size
        if p.slot.moment is not None:
            values = p.slot.squared_gradient(p.slot.moment.sample(_SAMPLE))
            squares += size * float(values.mean()) if values.size else 0.0
        elif p.slot.state:
            raise Unplaced("the optimizer keeps no second moments")
    if not math.isfinite(squares):
        raise Unplaced("the optimizer state has non-finite values")
    return math.sqrt(squares / elements) if elements else None


def _untouched_rows(slot: Slot, view: QuantizerView) -> int | None:
    """Codebook rows whose second moment is exactly zero; None where the state has no rows."""
    if slot.moment is None or math.prod(slot.moment.shape) != view.num_codes * view.dim:
        return None
    if slot.moment.dtype == "float16":
        return None  # it rounds the square of many a gradient to zero
    moment = slot.moment.read()
    as_stored = tuple(n for n in slot.moment.shape if n > 1)
    if as_stored == (view.dim, view.num_codes) and view.dim != view.num_codes:
        moment = moment.reshape(view.dim, view.num_codes).T
    rows = moment.reshape(view.num_codes, view.dim)
    return int(np.sum((rows == 0).all(axis=1)))


PROBE = Probe(kinds=(OptimizerMemory,), measure=measure)
