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
    """Return the GPU of this process; None on a machine that has fewer than processes.

    All of these answer alike: one that sends by NCCL would wait for ever for one that sends by gloo.
    """
    there = torch.cuda.is_available() and torch.cuda.device_count() >= launched.local_size
    return torch.device("cuda", launched.local_rank) if there else None


@contextlib.contextmanager
def default_group(launched: Launched) -> Iterator[torch.device | None]:
    """Let the user's code see the launcher's processes, as in its own training, while the context lasts.

    Each has its own GPU, which the context gives, as the current one: NCCL lets no two share one.

    Raises:
        RuntimeError: if another process does not come.
    """
    gpu = gpu_of(launched)
    backend = "gloo" if gpu is None else "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=TIMEOUT)
    _ask_anew()
    try:
        with contextlib.nullcontext() if gpu is None else torch.cuda.device(gpu):
            yield gpu
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
