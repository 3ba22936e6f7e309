"""Several processes of one training: as threads of this one, or started by torch's launcher."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as c10d

from vqdoctor.training.ranks import Ranks

WAIT = timedelta(seconds=60)
"""A collective that takes longer fails: no test waits for a process that has ended."""


def ranks_of(size: int, wait: timedelta = WAIT) -> list[Ranks]:
    """Return the ranks of a training in one process, one for each thread, which send tensors by gloo."""
    store = c10d.HashStore()

    def joined(rank: int) -> Ranks:
        return Ranks(rank=rank, size=size, group=c10d.ProcessGroupGloo(store, rank, size, wait), store=store)

    return in_threads([lambda rank=rank: joined(rank) for rank in range(size)])


def in_threads(work: Sequence[Callable[[], Any]]) -> list[Any]:
    """Do several things at the same time, and return what each gives."""
    with ThreadPoolExecutor(len(work)) as pool:
        return [done.result() for done in [pool.submit(one) for one in work]]


def torchrun(size: int, *arguments: str | Path) -> list[str | Path]:
    """Return the arguments of Python by which torch's launcher starts processes on a free port."""
    port = str(free_port())
    return ["-m", "torch.distributed.run", "--nproc-per-node", str(size), "--master-port", port, *arguments]


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


def as_rank(rank: int, size: int, port: int, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables by which the launcher tells a process its place."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    return {
        **environment,
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "localhost",
        **{name: str(number) for name, number in place.items()},
    }
