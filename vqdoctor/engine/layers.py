"""From a file's VQ layers to the arrays that remedies change, and from these to what is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqdoctor.checkpoint import Checkpoint, LazyTensor
from vqdoctor.core.evidence import Usage
from vqdoctor.core.report import Change, Report
from vqdoctor.layouts.layer_arrays import LayerArrays
from vqdoctor.layouts.live_rows import is_unit
from vqdoctor.layouts.stacks import stacks
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.geometry import Mask, Rows, live_median, live_rows, row_norms
from vqdoctor.saved.placement import codebook_slot
from vqdoctor.saved.training import SavedTraining

SAME = 1e-3
"""Vectors are what the level before leaves when they differ from it by at most this share of their length."""


def arrays_of(view: QuantizerView, before: Report, z_e: Rows | None, rng: np.random.Generator) -> LayerArrays:
    """Return copies of a layer's arrays, with what an examination says of it."""
    usage = before.find(Usage, view.name)
    known = None if usage is None or len(usage.histogram) != view.num_codes else np.array(usage.histogram)
    finite = view.codebook[np.isfinite(view.codebook).all(axis=1)]
    norms = row_norms(finite)
    unit_rows = view.lookup != "euclidean" and is_unit(norms, live_rows(norms, live_median(norms)))
    return LayerArrays(
        name=view.name,
        codebook=view.codebook.copy(),
        counts=None if view.counts is None else view.counts.copy(),
        sums=None if view.sums is None else view.sums.copy(),
        smoothing=view.smoothing,
        known_usage=known,
        z_e=z_e,
        by_angle=view.lookup == "cosine" or (view.lookup is None and unit_rows),
        unit_rows=unit_rows,
        chosen_by_logits=view.lookup == "logits",
        rng=rng,
    )


def in_order(views: Sequence[QuantizerView]) -> Iterator[tuple[QuantizerView, QuantizerView | None]]:
    """Yield each layer after the level before it, with that level; None where it is no later level."""
    levels = stacks(views)
    stacked = {view.name for stack in levels for view in stack}
    for stack in levels:
        yield from zip(stack, (None, *stack[:-1]), strict=True)
    yield from ((view, None) for view in views if view.name not in stacked)


def residuals(before: LayerArrays, old_codes: Rows, z_e: Rows | None) -> Rows | None:
    """Return a level's vectors as they are once the level before it has its new codes.

    Args:
        before: the level before, with its new codes.
        old_codes: the codes that it had.
        z_e: this level's vectors as they were seen. Where they are not what the level before leaves of its
            own (a projection stands between), they are returned as they are.
    """
    if z_e is None or before.z_e is None or before.z_e.shape != z_e.shape or not before.moved.any():
        return z_e
    if not np.isfinite(old_codes).all() or not before.finite.all():
        return z_e
    left = before.z_e - old_codes[before.assign(before.z_e, old_codes)]
    if np.median(row_norms(left - z_e)) > SAME * np.median(row_norms(z_e)):
        return z_e
    codes = before.codebook
    return before.z_e - codes[before.assign(before.z_e, codes)]


@dataclass(kw_only=True, eq=False)
class Pending:
    """The tensors that are to be written, each as it will be.

    Attributes:
        checkpoint: the input.
        views: its VQ layers.
        values: key to new values, in the tensor's shape.
        estimated: keys of counts that no training has counted.
        unclear: layers whose codes an optimizer may hold, though it is not clear where.
    """

    checkpoint: Checkpoint
    views: tuple[QuantizerView, ...]
    values: dict[str, NDArray[Any]] = field(default_factory=dict)
    estimated: dict[str, None] = field(default_factory=dict)
    unclear: list[str] = field(default_factory=list)

    def take(self, view: QuantizerView, layer: LayerArrays, moved: Mask, recounted: Mask) -> list[Change]:
        """Take over rows of a layer that were written, and return what that changes, tensor by tensor."""
        found: list[Change] = []
        keys, place = view.keys, view.place
        if moved.any() and not view.derived:
            found += self._rows(keys["codebook"], place.codes, layer.codebook, moved, "codes")
        if recounted.any() and layer.counts is not None:
            found += self._rows(keys["counts"], place.counts, layer.counts, recounted, "EMA counts")
            if layer.estimated:
                self.estimated[keys["counts"]] = None
        if recounted.any() and layer.sums is not None:
            found += self._rows(keys["sums"], place.codes, layer.sums, recounted, "EMA sums")
        if moved.any() and view.initted is False:
            found += self._flag(keys["initted"])
        if moved.any():
            found += self._moments(view, moved)
        return found

    def _of(self, key: str) -> NDArray[Any]:
        if key not in self.values:
            self.values[key] = self.checkpoint.tensors[key].read().copy()
        return self.values[key]

    def _rows(
        self, key: str, rows_of: Callable[[Any], Any], new: NDArray[Any], rows: Mask, what: str
    ) -> Iterator[Change]:
        stored = rows_of(self._of(key))
        before = _figures(stored)
        stored[rows] = new[rows]
        told = f"{int(rows.sum()):,} of {len(rows):,} {what}"
        yield Change(key=key, what=told, before=before, after=_figures(stored))

    def _flag(self, key: str) -> Iterator[Change]:
        stored = self._of(key)
        before = float(stored.reshape(-1)[0])
        stored[...] = 1
        if before != 1:
            what = "the flag that the codebook is initialised"
            yield Change(key=key, what=what, before={"value": before}, after={"value": 1.0})

    def _moments(self, view: QuantizerView, moved: Mask) -> Iterator[Change]:
        """Clear what an optimizer remembers of rows that are no longer what it moved."""
        saved = SavedTraining(checkpoint=self.checkpoint)
        slot = codebook_slot(saved, view, self.views)
        shape = self.checkpoint.tensors[view.keys["codebook"]].shape
        if slot is None:
            held = (s.shape for optimizer in saved.optimizers for s in optimizer.slots)
            if shape in held and "counts" not in view.keys:
                self.unclear.append(view.name)
            return
        for role, tensor in slot.state.items():
            if isinstance(tensor, LazyTensor) and tensor.shape == shape and tensor.key:
                stored = view.place.codes(self._of(tensor.key))
                before = _figures(stored)
                stored[moved] = 0
                told = f"{int(moved.sum()):,} rows of the optimizer's {role}, cleared"
                yield Change(key=tensor.key, what=told, before=before, after=_figures(stored))


def _figures(stored: NDArray[Any]) -> Mapping[str, float]:
    """Return the largest finite magnitude, and the least one where these are counts."""
    values = np.abs(stored[np.isfinite(stored)], dtype=np.float64)
    if not values.size:
        return {}
    found = {"largest": float(values.max())}
    return {"least": float(values.min()), **found} if stored.ndim == 1 else found
