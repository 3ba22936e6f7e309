"""Does the layer choose the same codes in float32 as in the precision that it runs in?

The layer itself is asked twice for the same input, once as the model asked it and once in float32, so that
whatever else it does to its input stays the same: without autocast, and with float32 in place of every
coarser type that it casts to by itself.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vqdoctor.capture.call import FAILURES, Call
from vqdoctor.capture.reader import Codes, Reader
from vqdoctor.core.evidence import LookupPrecision
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import each_layer
from vqdoctor.probes.model.data_match import nearest_of


class _InFull(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, casts to coarser types than float32 are casts to float32.

    Attributes:
        replaced: the types that were asked for.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.replaced: set[torch.dtype] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the operation, with float32 for a coarser type."""
        given = dict(kwargs or {})
        dtype = given.get("dtype")
        if isinstance(dtype, torch.dtype) and dtype.is_floating_point and _rounding(dtype) > _FLOAT32:
            self.replaced.add(dtype)
            given["dtype"] = torch.float32
        return func(*args, **given)


def _rounding(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps


_FLOAT32 = _rounding(torch.float32)
_NEAREST = 0.99
"""Least share of the codes chosen in float32 that are the nearest: two may be equally near."""


def measure(context: ModelContext) -> dict[str, LookupPrecision]:
    """Return, for every layer whose codes are seen, how many survive full precision."""
    calls, _ = context.first_calls(training=False)
    measured = {}
    for name, call in calls.items():
        with contextlib.suppress(*FAILURES):
            found = _precision(context, context.layers[name].reader, call)
            if found is not None:
                measured[name] = found
    return measured


def _precision(context: ModelContext, reader: Reader, call: Call) -> LookupPrecision | None:
    device, full = call.z_e.device.type, _InFull()
    with torch.autocast(device, dtype=call.autocast, enabled=call.autocast is not None):
        as_it_is = _codes(reader, call.again(context.seed))
    with torch.autocast(device, enabled=False), full:
        twin = copy.deepcopy(call.module).float()
        in_full = _codes(reader, call.again(context.seed, torch.Tensor.float, twin))
    if as_it_is is None or in_full is None:
        return None
    tensors = (call.z_e, *call.module.parameters(), *call.module.buffers())
    growth, added = _error(reader, call, as_it_is.flatten(), in_full.flatten()) or (None, None)
    types = {t.dtype for t in tensors if t.is_floating_point()} | {call.autocast or torch.float32}
    return LookupPrecision(
        source="batch",
        sample_size=as_it_is.size,
        dtype=str(max(types | full.replaced, key=_rounding)).removeprefix("torch."),
        agreement=float((as_it_is == in_full).mean()),
        used=_distinct(as_it_is),
        used_in_full=_distinct(in_full),
        error_growth=growth,
        added_error=added,
    )


def _error(reader: Reader, call: Call, chosen: Codes, in_full: Codes) -> tuple[float, float] | None:
    """Return how the squared error of codes [N] grows over that of others: over itself, and over Var.

    None where the vectors are not seen, or the others are not the nearest codes.
    """
    vectors = reader.looked_up(call) if reader.has_codebook else None
    if vectors is None or not 0 < len(vectors) == len(chosen) == len(in_full):
        return None
    compared, codebook, best = nearest_of(reader, vectors)
    is_nearest = (best.indices == in_full).mean() >= _NEAREST
    if not is_nearest or chosen.min() < 0 or not np.isfinite(vectors).all():
        return None
    least, found = (
        float(np.square(compared - codebook[codes]).sum(axis=1).mean()) for codes in (in_full, chosen)
    )
    variance = float(compared.var(axis=0, dtype=np.float64).sum())
    return (found / least - 1, (found - least) / variance) if least > 0 and variance > 0 else None


def _codes(reader: Reader, call: Call) -> Codes | None:
    """Return the codes [any] that a call gave, or else those that its output consists of."""
    return reader.codes(call) if call.indices is None else call.indices.cpu().numpy()


def _distinct(codes: Codes) -> int:
    return len(np.unique(codes.clip(0)))


NOT_ASKED = "the layer does not show its codes, or cannot be asked"
PROBE = each_layer(LookupPrecision, measure, NOT_ASKED, mode="eval")
