"""The dumped arrays, brought into one form: vectors [N, D] and indices [N], each with its sample."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqdoctor.core.errors import UserError
from vqdoctor.core.frozen import frozen
from vqdoctor.layouts.live_rows import is_unit, live_mask
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.geometry import Rows
from vqdoctor.metrics.match import Assignment, nearest, unit
from vqdoctor.probes.probe import Missing

AnyArray = NDArray[Any]
Z_E = "z_e"
INDICES = "indices"
MOST_PRODUCTS = 1 << 36
"""Products of vectors with codes, number by number, for one layer: 3 s of CPU with one thread."""
_PASSES = 64
"""The cost of a pair of vector and code beside its products, in products."""
MASKED = -1
"""The code that libraries give a masked vector."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Vectors:
    """Finite z_e of one layer.

    Attributes:
        rows: float32 [N, D]; of norm one where the codebook is a cosine codebook.
        groups: the sample that each comes from, int64 [N]; None where the dump is flat.
        found: their nearest codes, and each code's nearest vector.
    """

    rows: Rows
    groups: NDArray[np.int64] | None
    found: Assignment


@frozen
class Indices:
    """Code indices of one layer: int64 [N], and the sample of each; None where the dump is flat."""

    codes: NDArray[np.int64]
    groups: NDArray[np.int64] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class DumpContext:
    """VQ layers, and arrays that were dumped beside them.

    `z_e` is [N, D], or has samples first and D on any other axis: [B, T, D], [B, D, T], [B, D, H, W].
    `indices` has any shape, samples first. With several layers, arrays are named "z_e/LAYER" and
    "indices/LAYER", or `indices` has one axis of that many layers.

    Attributes:
        views: the VQ layers.
        arrays: the dumped arrays by name.
        mask: name of the array that is true where there is data and no padding; None for none.
        seed: seed of everything that is drawn.
        histogram: whether the full counts go into the evidence.
    """

    views: tuple[QuantizerView, ...]
    arrays: Mapping[str, AnyArray]
    mask: str | None = None
    seed: int = 0
    histogram: bool = False
    _vectors: dict[str, Vectors] = field(default_factory=dict, init=False, repr=False)

    def z_e_key(self, view: QuantizerView) -> str:
        """Return the name of the layer's z_e.

        Raises:
            Missing: if there is none, or none that is surely this layer's.
        """
        own = f"{Z_E}/{view.name}"
        if own in self.arrays:
            return own
        if Z_E not in self.arrays:
            raise Missing("the batch holds no z_e for this layer", f"add {own if self._several else Z_E}")
        if self._several:
            raise Missing(f"{len(self.views)} VQ layers share one z_e", f"name it {own}")
        return Z_E

    @property
    def _several(self) -> bool:
        return len(self.views) > 1

    def raw_rows(self, view: QuantizerView) -> tuple[Rows, NDArray[np.int64] | None]:
        """Return the layer's z_e as float32 [N, D], finite or not, and the sample of each vector.

        Raises:
            Missing: if there is none, or two of its axes might be D.
            UserError: if it does not fit the codebook.
        """
        key = self.z_e_key(view)
        array = self.arrays[key]
        if array.dtype.kind not in "fiu" or not array.size:
            raise UserError(f"{key}: {array.dtype} {array.shape} holds no real numbers")
        flat = array.ndim == 2
        axis = _axis(key, array.shape, view.dim, f"codes of dimension {view.dim}", first=0 if flat else 1)
        if flat and axis == 0:
            raise UserError(f"{key}: its shape {array.shape} is [D, N]", "transpose it to [N, D]")
        channels_last = np.moveaxis(array, axis, -1).reshape(-1, view.dim)
        rows: Rows = np.ascontiguousarray(channels_last, dtype=np.float32)
        groups = None if flat else _samples(len(array), len(rows))
        kept = self._data(view, key, len(rows))
        if kept.all():  # a copy would double what the batch takes
            return rows, groups
        return rows[kept], None if groups is None else groups[kept]

    def _data(self, view: QuantizerView, key: str, size: int) -> NDArray[np.bool_]:
        """Return which of an array's vectors [N] are data: those that neither the mask nor a -1 leaves out.

        Raises:
            UserError: if the mask does not fit, or leaves nothing.
        """
        kept = np.ones(size, dtype=np.bool_)
        with contextlib.suppress(Missing):
            codes = self._codes(view)[1]
            kept &= True if codes is None or codes.size != size else codes != MASKED
        if self.mask is not None:
            mask = self.arrays[self.mask]
            if mask.size != size:
                what = f"{self.mask}: its shape {mask.shape} has {mask.size:,} positions, and {key} {size:,}"
                raise UserError(what, "save it with one value for each position")
            kept &= mask.reshape(-1) != 0
        if not kept.any():
            raise UserError(f"{key}: every position is masked", "the mask is True where there is data")
        return kept

    def asked_vectors(self) -> dict[str, Rows]:
        """Return each layer's finite z_e [N, D]; layers without one are left out."""
        found = {}
        for view in self.views:
            with contextlib.suppress(Missing):
                rows, _ = self.raw_rows(view)
                if np.isfinite(rows).all():
                    found[view.name] = rows
        return found

    def vectors(self, view: QuantizerView) -> Vectors:
        """Return the layer's z_e, assigned to its codes.

        Raises:
            Missing: if there is none, or it or the codebook is not finite.
            UserError: if it does not fit the codebook.
        """
        if view.name not in self._vectors:
            self._vectors[view.name] = self._assigned(view)
        return self._vectors[view.name]

    def _assigned(self, view: QuantizerView) -> Vectors:
        rows, groups = self.raw_rows(view)
        if view.lookup == "logits":
            raise Missing("its code is not the nearest row of the table", f"add {INDICES}/{view.name}")
        if not np.isfinite(view.codebook).all():
            raise Missing("codebook has non-finite values")
        if not np.isfinite(rows).all():
            raise Missing("z_e has non-finite values")
        norms, _, live = live_mask(view)
        if is_unit(norms, live):
            rows = unit(rows)
        kept = self._drawn(len(rows), view)
        rows, groups = rows[kept], None if groups is None else groups[kept]
        return Vectors(rows=rows, groups=groups, found=nearest(rows, view.codebook))

    def _drawn(self, size: int, view: QuantizerView) -> NDArray[np.int64] | slice:
        """Return which of a layer's vectors are compared with its codes: all, or as many as cost seconds."""
        most = MOST_PRODUCTS // (view.num_codes * (view.dim + _PASSES))
        if size <= most:
            return slice(None)
        return np.sort(np.random.default_rng(self.seed).choice(size, most, replace=False))

    def notes(self) -> list[str]:
        """Return which dumped vectors and indices were left out, one line for each number of them."""
        left: list[str] = []
        for view in self.views:
            with contextlib.suppress(Missing):
                drawn = self._drawn(size := len(self.raw_rows(view)[0]), view)
                if not isinstance(drawn, slice):
                    left.append(
                        f"{len(drawn):,} of the {size:,} dumped vectors were drawn to be compared with "
                        f"the {view.num_codes:,} codes of {view.name}"
                    )
            with contextlib.suppress(Missing):
                codes = self._codes(view)[1]
                if codes is not None and (masked := int((codes == MASKED).sum())):
                    left.append(f"{masked:,} of {codes.size:,} dumped indices are -1 (masked), and left out")
        return list(dict.fromkeys(left))

    def indices(self, view: QuantizerView) -> Indices | None:
        """Return the layer's dumped code indices without masked ones; None where the dump holds none.

        Raises:
            Missing: if several layers share an array, and it is unclear which part is theirs.
            UserError: if they are not whole numbers from -1 to K − 1.
        """
        key, codes, shape = self._codes(view)
        if codes is None:
            return None
        kept = self._data(view, key, codes.size)
        groups = _samples(shape[0], codes.size)[kept] if len(shape) > 1 else None
        return Indices(codes=codes[kept], groups=groups)

    def _codes(self, view: QuantizerView) -> tuple[str, NDArray[np.int64] | None, tuple[int, ...]]:
        """Return the name of the layer's indices, its codes [N] with -1 where masked, and the shape.

        Raises:
            Missing, UserError: see `indices`.
        """
        key = f"{INDICES}/{view.name}"
        array = self.arrays.get(key)
        if array is None:
            key, array = INDICES, self.arrays.get(INDICES)
            if array is not None and self._several:
                # several layers have an axis of their own
                axis = _axis(INDICES, array.shape, len(self.views), f"{len(self.views)} VQ layers", first=1)
                array = np.take(array, self.views.index(view), axis=axis)
        if array is None:
            return key, None, ()
        if array.dtype.kind not in "iu" or not array.size:
            raise UserError(f"{key}: {array.dtype} {array.shape} holds no code indices", "save them as int64")
        codes = array.reshape(-1).astype(np.int64)
        if codes.min() < MASKED or codes.max() >= view.num_codes:
            raise UserError(
                f"{key}: values from {codes.min()} to {codes.max()}, where {view.name} has codes 0 to "
                f"{view.num_codes - 1}",
                "mask padding with -1 or --mask KEY, and check that batch and checkpoint belong together",
            )
        return key, codes, array.shape


def _axis(key: str, shape: tuple[int, ...], length: int, what: str, first: int) -> int:
    """Return the one axis, from `first` on, that has that length; the last wins over axis 0."""
    fitting = [axis for axis in range(first, len(shape)) if shape[axis] == length]
    if len(shape) == 2 and fitting and fitting[-1] == 1:
        return 1
    if not fitting:
        raise UserError(f"{key}: no axis of its shape {shape} fits {what}", f"save it as [N, {length}]")
    if len(fitting) > 1:
        axes = " and ".join(str(axis) for axis in fitting)
        raise Missing(f"axes {axes} of {key} {shape} both fit {what}", f"save it as [N, {length}]")
    return fitting[0]


def _samples(samples: int, vectors: int) -> NDArray[np.int64]:
    return np.repeat(np.arange(samples), vectors // samples)
