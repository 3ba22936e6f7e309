"""Tensors that wrap another one: a DTensor of torch.distributed, as FSDP saves them.

References:
    torch/distributed/tensor/_api.py (`DTensor`), torch/_utils.py (`_rebuild_wrapper_subclass`).
"""

from __future__ import annotations

from vqdoctor.checkpoint.tensor import LazyTensor
from vqdoctor.checkpoint.tree import Global

_DTENSORS = frozenset({"torch.distributed.tensor.DTensor", "torch.distributed._tensor.api.DTensor"})


def local_of_whole(function: object, args: object, state: object) -> LazyTensor | None:
    """Return the local tensor of a DTensor that is all of it: replicated, or on one process; else None."""
    is_wrapper = isinstance(function, Global) and function.name == "_rebuild_wrapper_subclass"
    if not (is_wrapper and isinstance(args, tuple) and len(args) > 2 and str(args[0]) in _DTENSORS):
        return None
    # With __slots__ a state is the attributes of the dict, None here, and those of the slots.
    parts = state if isinstance(state, tuple) else (state,)
    kept = (part.get("_local_tensor") for part in parts if isinstance(part, dict))
    local = next((tensor for tensor in kept if isinstance(tensor, LazyTensor)), None)
    return local if local is not None and local.shape == args[2] else None
