"""Does the layer choose the same codes in float32 as in the precision that it runs in?

The layer itself is asked twice for the same input, once as the model asked it and once in float32, so that
whatever else it does to its input stays the same: without autocast, and with float32 in place of every
coarser type that it casts to by itself.
"""

from __future__ import annotations

import contextlib
import copy

import torch

from vqdoctor.capture.call import FAILURES, Call
from vqdoctor.core.evidence import LookupPrecision
from vqdoctor.probes.model._context import ModelContext
from vqdoctor.probes.model._gaps import each_layer


def measure(context: ModelContext) -> dict[str, LookupPrecision]:
    """Return, for every layer that gives indices, how many survive full precision."""
    calls, _ = context.first_calls(training=False)
    measured = {}
    for name, call in calls.items():
        if call.indices is not None:
            with contextlib.suppress(*FAILURES):
                measured[name] = _precision(context, call)
    return measured


def _precision(context: ModelContext, call: Call) -> LookupPrecision:
    device = call.z_e.device.type
    with torch.autocast(device, dtype=call.autocast, enabled=call.autocast is not None):
        as_it_is = call.again(context.seed).indices
    with torch.autocast(device, enabled=False):
        in_full = call.again(context.seed, torch.Tensor.float, copy.deepcopy(call.module).float()).indices
    assert as_it_is is not None and in_full is not None
    tensors = (call.z_e, *call.module.parameters(), *call.module.buffers())
    types = {t.dtype for t in tensors if t.is_floating_point()} | {call.autocast or torch.float32}
    coarsest = max(types, key=lambda dtype: torch.finfo(dtype).eps)
    return LookupPrecision(
        source="batch",
        sample_size=as_it_is.numel(),
        dtype=str(coarsest).removeprefix("torch."),
        agreement=float((as_it_is == in_full).float().mean()),
        used=_distinct(as_it_is),
        used_in_full=_distinct(in_full),
    )


def _distinct(codes: torch.Tensor) -> int:
    return int((torch.bincount(codes.flatten().clamp_min(0)) > 0).sum())


NOT_ASKED = "the layer gives no indices, or cannot be asked"
PROBE = each_layer(LookupPrecision, measure, NOT_ASKED, mode="eval")
