"""A window of the indices that a layer chose last, as LlamaGen and its kin keep one (`codebook_used`).

It has many names, and proves itself by its values: whole numbers from 0 to K - 1 in no order, with repeats.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vqdoctor.checkpoint import Checkpoint
from vqdoctor.layouts.view import QuantizerView

Indices = NDArray[np.int64]

FEWEST = 64
"""Values from which a vector may be a window: shorter ones are flags, strides and lists of levels."""
START = 64
"""Equal values at an end from which they are the value that the window started from: by chance codes that are
used as evenly as in a working layer never repeat as often."""


def index_window(checkpoint: Checkpoint, view: QuantizerView) -> Indices | None:
    """Return the indices that a layer's window holds, without what it started from; None without a window."""
    for key in _beside(checkpoint, view):
        found = _indices(np.asarray(checkpoint.tensors[key].read()), view.num_codes)
        if found is not None:
            return found
    return None


def _beside(checkpoint: Checkpoint, view: QuantizerView) -> Iterator[str]:
    """Yield the vectors beside the codebook and beside its module, but the layer's own."""
    owner = view.keys.get("codebook", "").rpartition(".")[0]
    owners = {owner, owner.rpartition(".")[0]} - {""}
    for key, tensor in checkpoint.tensors.items():
        is_vector = len(tensor.shape) == 1 and tensor.shape[0] >= FEWEST
        # one value for each code is a statistic of the codes, such as their ages
        is_window = is_vector and tensor.shape[0] != view.num_codes and tensor.dtype != "bool"
        if is_window and key.rpartition(".")[0] in owners and key not in view.keys.values():
            yield key


def _indices(values: NDArray[np.generic], num_codes: int) -> Indices | None:
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        return None
    indices: Indices = values.astype(np.int64)
    if (indices != values).any() or indices.min() < 0 or indices.max() >= num_codes:
        return None
    for _ in range(2):  # it is written from one end or the other
        start = int(np.argmax(indices != indices[0]))
        indices = (indices[start:] if start >= START else indices)[::-1]
    rises_and_falls = bool((np.diff(indices) > 0).any() and (np.diff(indices) < 0).any())
    return indices if len(indices) >= FEWEST and rises_and_falls else None
