"""torch's default process group, as a training has it that the launcher started."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from datetime import timedelta

import torch
from torch import distributed

from vqdoctor.core.launcher import Launched

TIMEOUT = timedelta(minutes=10)
"""After so long without an answer another process counts as ended: the default of NCCL."""


def gpu_of(launched: Launched) -> torch.device | None:
    """Return the GPU of this process; None where there is none for it."""
    there = torch.cuda.is_available() and torch.cuda.device_count() > launched.local_rank
    return torch.device("cuda", launched.local_rank) if there else None


@contextlib.contextmanager
def default_group(launched: Launched) -> Iterator[None]:
    """Let the user's code see the launcher's processes, as in its own training, while the context lasts.

    Raises:
        RuntimeError: if another process does not come.
    """
    backend = "gloo" if gpu_of(launched) is None else "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=TIMEOUT)
    _ask_anew()
    try:
        yield
    finally:
        distributed.destroy_process_group()
        _ask_anew()


def _ask_anew() -> None:
    """Let libraries ask again whether the training is distributed.

    vector-quantize-pytorch asks once, and a model was built before there was a group.
    """
    for module in list(sys.modules.values()):
        forget = getattr(getattr(module, "__dict__", {}).get("is_distributed"), "cache_clear", None)
        if callable(forget):
            forget()
