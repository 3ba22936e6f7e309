"""NaN and infinity: the VQ tensors whole, the rest of the model and the optimizer in samples.

The numbers of a trainer are passed over: a best score starts at infinity in every healthy run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqdoctor.checkpoint import LazyTensor
from vqdoctor.core.evidence import Evidence, NonFinite, Unavailable
from vqdoctor.probes.file._context import FileContext
from vqdoctor.probes.probe import Probe

_SAMPLE = 4096
_BLOCK = 1 << 20
_NAMED = 16


def measure(context: FileContext) -> Iterator[Evidence | Unavailable]:
    """Yield the broken numbers in each layer's tensors, then in the rest of the model and the optimizer."""
    for view in context.views:
        by_role = (("codebook", view.codebook), ("counts", view.counts), ("sums", view.sums))
        parts = ((view.keys.get(role, role), values) for role, values in by_role if values is not None)
        yield _count(parts, layer=view.name, sampled=False)
    tensors = context.checkpoint.tensors
    passed_over = {key for view in context.views for key in view.keys.values()}
    passed_over |= {key for state in context.saved.models if state.is_trainers for key in state.raw.values()}
    rest = [t for key, t in tensors.items() if key not in passed_over and not _is_blank(key, tensors)]
    yield _count(_values(rest, context.verify), layer=None, sampled=not context.verify)


def _is_blank(key: str, tensors: Mapping[str, LazyTensor]) -> bool:
    """Whether a tensor holds no values yet, as a flag beside it says: it was made with `torch.empty`.

    So vector-quantize-pytorch makes the statistics of its affine codes, until the first training step.
    """
    flag = tensors.get(f"{key}_needs_init")
    return flag is not None and flag.dtype == "bool" and flag.shape == () and bool(flag.read())


def _count(parts: Iterable[tuple[str, NDArray[Any]]], layer: str | None, sampled: bool) -> NonFinite:
    looked_at = nan = inf = 0
    bad: dict[str, None] = {}  # ordered, and each key once
    for key, values in parts:
        looked_at += values.size
        nan += int(np.isnan(values).sum())
        inf += int(np.isinf(values).sum())
        if not np.isfinite(values).all():
            bad[key] = None
    return NonFinite(
        layer=layer,
        source="checkpoint",
        sample_size=looked_at,
        tensors=tuple(bad)[:_NAMED],
        tensor_count=len(bad),
        nan=nan,
        inf=inf,
        sampled=sampled,
    )


def _values(tensors: Iterable[LazyTensor], whole: bool) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the floating-point values of each tensor: a sample, or all of them in blocks."""
    for tensor in tensors:
        values = tensor.read() if whole else tensor.sample(_SAMPLE)
        if values.dtype.kind not in "fc":
            continue
        if not values.flags.c_contiguous:
            yield tensor.key, values
            continue
        flat = values.reshape(-1)
        for start in range(0, flat.size, _BLOCK):
            yield tensor.key, flat[start : start + _BLOCK]


PROBE = Probe(kinds=(NonFinite,), measure=measure)
