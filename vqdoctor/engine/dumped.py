"""Dumped indices of layers that store no table: FSQ, LFQ and their like, each codebook apart."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vqdoctor.core.errors import UserError
from vqdoctor.core.evidence import Evidence, Unavailable, Usage
from vqdoctor.core.levels import Confidence
from vqdoctor.engine.batch import Arrays
from vqdoctor.layouts import StateDict
from vqdoctor.layouts.implicit import lookup_free
from vqdoctor.layouts.view import Array, QuantizerView
from vqdoctor.probes.dump import DumpContext
from vqdoctor.probes.dump import usage as by_indices

INDICES = "indices"
IMPLICIT = "implicit"
MOST_CODEBOOKS = 16
"""Length up to which an axis may be one of codebooks: FSQ and LFQ are used with 1 to 8 of them."""
_NO_TABLE = "the file holds no table of codes"


def dumped_context(
    arrays: Arrays, states: tuple[StateDict, ...], mask: str | None, seed: int, histogram: bool
) -> tuple[DumpContext, list[str]]:
    """Return the context of a dump's indices, a view a codebook, and notes on what was assumed.

    Indices are named "indices/LAYER"; plain "indices" belong to the file's only lookup-free quantizer.

    Raises:
        UserError: if the indices are other values than whole numbers from -1.
    """
    known = [(path, 2**bits) for state in states for path, bits in lookup_free(state)]
    alone = known[0] if len(known) == 1 else ("vq", None)
    named: dict[str, NDArray[np.generic]] = {}
    notes: list[str] = []
    for key, array in arrays.items():
        if key.partition("/")[0] == INDICES:
            name = key.partition("/")[2] or alone[0]
            axis = _axis_of_codebooks(array.shape)
            if axis is None:
                named[name] = array
                continue
            notes.append(
                f"axis {axis} of {key} {array.shape} is taken for codebooks; or name them indices/LAYER"
            )
            parts = np.moveaxis(array, axis, 0)
            named.update({f"{name}[head {i}]": part for i, part in enumerate(parts)})
    sizes, least = dict(known), dict[str, int]()
    for name, array in named.items():
        if array.dtype.kind not in "iu" or not array.size or array.min() < -1:
            raise UserError(f"{INDICES} of {name}: {array.dtype} {array.shape} holds no code indices")
        layer = name.partition("[head ")[0]
        least[layer] = max(least.get(layer, 0), int(array.max()) + 1)
    for layer, highest in least.items():
        if sizes.get(layer, 0) < highest:
            notes.append(f"how many codes {layer} has is unknown; its highest index makes it {highest:,}")
    views = []
    for name in named:
        layer = name.partition("[head ")[0]
        size = sizes.get(layer, 0)
        views.append(_view(name, max(size, least[layer]), size >= least[layer]))
    dumped = {f"{INDICES}/{name}": array for name, array in named.items()}
    extra = {} if mask is None else {mask: arrays[mask]}
    context = DumpContext(
        views=tuple(views), arrays={**dumped, **extra}, mask=mask, seed=seed, histogram=histogram
    )
    return context, [*notes, *context.notes()]


def usages(context: DumpContext) -> Iterator[Evidence | Unavailable]:
    """Yield the usage of every codebook of `dumped_context`."""
    for item in by_indices.PROBE.measure(context):
        view = next(view for view in context.views if view.name == item.layer)
        is_known = view.confidence is Confidence.HIGH
        yield item.replace(implicit=True, at_least=not is_known) if isinstance(item, Usage) else item


def _axis_of_codebooks(shape: tuple[int, ...]) -> int | None:
    """Return the axis of [B, T, Q] or [B, Q, T] with one entry a codebook; None if it is unclear."""
    if len(shape) != 3:
        return None
    short, long = sorted((1, 2), key=lambda axis: shape[axis])
    is_clear = 2 <= shape[short] <= MOST_CODEBOOKS and shape[long] >= 2 * shape[short]
    return short if is_clear else None


def _view(name: str, num_codes: int, is_known: bool) -> QuantizerView:
    def load() -> Array:
        raise LookupError(_NO_TABLE)

    return QuantizerView(
        name=name,
        layout=IMPLICIT,
        confidence=Confidence.HIGH if is_known else Confidence.LOW,
        num_codes=num_codes,
        dim=0,  # the indices do not tell
        keys={},
        load_codebook=load,
    )
