"""torch's default process group, as a training has it that the launcher started."""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, cast

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


@functools.cache
def meeting_place(launched: Launched) -> Any:
    """Return the table of numbers by which the launcher's processes find each other, for a process's life.

    Where rank zero keeps it, a process that asked for a second one could reach the first, and wait in it.

    Raises:
        RuntimeError: if rank zero does not answer.
    """
    c10d = cast("Any", distributed)  # its stubs leave these names out
    met, _, _ = next(iter(c10d.rendezvous("env://", timeout=TIMEOUT)))
    return c10d.PrefixStore(f"vqdoctor/{launched.attempt}", met)


_groups = itertools.count()
"""The default groups that were made so far: each has numbers of its own at the meeting place."""
_left: list[Any] = []
"""The group of all processes, while `as_single_process` has left it."""


@contextlib.contextmanager
def default_group(launched: Launched) -> Iterator[torch.device | None]:
    """Let the user's code see the launcher's processes, as in its own training, while the context lasts.

    Each has its own GPU, which the context gives, as the current one: NCCL lets no two share one. A group
    that the user's own code has made, as a sharded model needs one, is used, and stays.

    Raises:
        RuntimeError: if another process does not come.
    """
    gpu = gpu_of(launched)
    if distributed.is_initialized():
        with as_all_processes():
            _ask_anew()
            yield gpu
        return
    backend = "gloo" if gpu is None else "cpu:gloo,cuda:nccl"
    store = cast("Any", distributed).PrefixStore(f"default/{next(_groups)}", meeting_place(launched))
    distributed.init_process_group(
        backend, store=store, rank=launched.rank, world_size=launched.size, timeout=TIMEOUT
    )
    _ask_anew()
    try:
        with contextlib.nullcontext() if gpu is None else torch.cuda.device(gpu):
            yield gpu
    finally:
        distributed.destroy_process_group()
        _ask_anew()


@contextlib.contextmanager
def as_single_process() -> Iterator[None]:
    """Let a layer that adds up what all processes saw add up its own alone, while the context lasts.

    A copy that one process runs would wait for the others, or take part in what they send meanwhile.
    """
    if _left or not (distributed.is_available() and distributed.is_initialized()):
        yield
        return
    group: Any = distributed.GroupMember
    _left.append(group.WORLD)
    own = distributed.new_group([distributed.get_rank()], use_local_synchronization=True)
    group.WORLD = own
    try:
        yield
    finally:
        group.WORLD = _left.pop()
        distributed.destroy_process_group(own)


@contextlib.contextmanager
def as_all_processes() -> Iterator[None]:
    """Undo `as_single_process` while the context lasts, to build a model that needs all processes."""
    if not _left:
        yield
        return
    group: Any = distributed.GroupMember
    own, group.WORLD = group.WORLD, _left[0]
    try:
        yield
    finally:
        group.WORLD = own


def _ask_anew() -> None:
    """Let libraries ask again whether the training is distributed.

    vector-quantize-pytorch asks once, and a model was built before there was a group.
    """
    for module in list(sys.modules.values()):
        forget = getattr(getattr(module, "__dict__", {}).get("is_distributed"), "cache_clear", None)
        if callable(forget):
            forget()
