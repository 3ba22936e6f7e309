"""From a file's VQ layers to the arrays that remedies change, and from these to what is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqdoctor.checkpoint import LazyTensor
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
"""The share of their length by which vectors may differ from the residuals of the level before."""


def arrays_of(view: QuantizerView, before: Report, z_e: Rows | None, rng: np.random.Generator) -> LayerArrays:
    """Return copies of a layer's arrays, with its usage and geometry from an examination."""
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
    """Yield each layer after the level before it, with that level; None for a first level or a lone layer."""
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
        z_e: this level's vectors as they were seen. Where they are not the residuals of the level before
            (a projection is in between), they are returned as they are.
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
    """The tensors to write, each as it will be.

    Attributes:
        saved: the input and the optimizers in it.
        views: its VQ layers.
        values: key to new values, in the tensor's shape.
        estimated: keys of counts that no training has counted.
        unclear: layers whose codes an optimizer may hold in an unclear place.
    """

    saved: SavedTraining
    views: tuple[QuantizerView, ...]
    values: dict[str, NDArray[Any]] = field(default_factory=dict)
    estimated: dict[str, None] = field(default_factory=dict)
    unclear: list[str] = field(default_factory=list)

    def take(self, view: QuantizerView, layer: LayerArrays, moved: Mask, recounted: Mask) -> list[Change]:
        """Take over rows of a layer that were written, and return the changes, tensor by tensor."""
        found: list[Change] = []
        keys, place = view.keys, view.place
        codes, counts = (f"{int(rows.sum()):,} of {len(rows):,}" for rows in (moved, recounted))
        if moved.any() and not view.derived:
            new = layer.codebook[moved]
            found.append(self._write(keys["codebook"], place.codes, moved, new, f"{codes} codes"))
        if recounted.any() and layer.counts is not None:
            new = layer.counts[recounted]
            found.append(self._write(keys["counts"], place.counts, recounted, new, f"{counts} EMA counts"))
            if layer.estimated:
                self.estimated[keys["counts"]] = None
        if recounted.any() and layer.sums is not None:
            new = layer.sums[recounted]
            found.append(self._write(keys["sums"], place.codes, recounted, new, f"{counts} EMA sums"))
        if moved.any():
            found += self._flag(view)
            found += self._moments(view, moved)
        for key, others in view.copies.items():
            if key in self.values:
                self.values.update(dict.fromkeys(others, self.values[key]))
        return found

    def _of(self, key: str) -> NDArray[Any]:
        if key not in self.values:
            self.values[key] = self.saved.checkpoint.tensors[key].read().copy()
        return self.values[key]

    def _write(
        self,
        key: str,
        rows_of: Callable[[NDArray[Any]], NDArray[Any]],
        rows: Mask,
        new: NDArray[Any] | float,
        what: str,
    ) -> Change:
        stored = rows_of(self._of(key))
        before = _figures(stored)
        stored[rows] = new
        return Change(key=key, what=what, before=before, after=_figures(stored))

    def _flag(self, view: QuantizerView) -> Iterator[Change]:
        if view.initted is False:
            stored = self._of(view.keys["initted"])
            before = float(stored.reshape(-1)[0])
            stored[...] = 1
            if before != 1:
                what = "the flag that the codebook is initialised"
                key = view.keys["initted"]
                yield Change(key=key, what=what, before={"value": before}, after={"value": 1.0})

    def _moments(self, view: QuantizerView, moved: Mask) -> Iterator[Change]:
        """Clear the optimizer's memory of rows that were moved."""
        slot = codebook_slot(self.saved, view, self.views)
        shape = self.saved.checkpoint.tensors[view.keys["codebook"]].shape
        if slot is None:
            held = (s.shape for optimizer in self.saved.optimizers for s in optimizer.slots)
            if shape in held and "counts" not in view.keys:
                self.unclear.append(view.name)
            return
        own = self.saved.checkpoint.tensors
        for role, tensor in slot.state.items():
            if isinstance(tensor, LazyTensor) and tensor.shape == shape and tensor.key:
                if own.get(tensor.key) is not tensor:  # the optimizer lies in a file of its own
                    self.unclear.append(view.name)
                    return
                told = f"{int(moved.sum()):,} rows of the optimizer's {role}, cleared"
                yield self._write(tensor.key, view.place.codes, moved, 0, told)


def _figures(stored: NDArray[Any]) -> Mapping[str, float]:
    """Return the largest finite magnitude, and the least one where these are counts."""
    values = np.abs(stored[np.isfinite(stored)], dtype=np.float64)
    if not values.size:
        return {}
    found = {"largest": float(values.max())}
    return {"least": float(values.min()), **found} if stored.ndim == 1 else found
