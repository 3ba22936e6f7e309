"""Building an optimizer without torch's compiler, whose import takes over a second and 100 MB."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from torch.optim import Optimizer

_CACHE = "__dynamo_disable"
"""The attribute under which torch keeps the form of a function that it does not compile, once it made one."""


@contextlib.contextmanager
def without_compiler() -> Iterator[None]:
    """Let optimizers be built as they are while the context lasts; a compiler that is loaded stays in use.

    `Optimizer.add_param_group` imports it only to say that it is not to be compiled. Another torch, without
    that cache, imports it as ever.
    """
    add = getattr(Optimizer.add_param_group, "__wrapped__", None)
    if add is None or "torch._dynamo" in sys.modules or hasattr(add, _CACHE):
        yield
        return
    setattr(add, _CACHE, add)
    try:
        yield
    finally:
        delattr(add, _CACHE)
