"""The ranks of a distributed training that watch it together: each adds the codes that it chose."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray

from vqdoctor.probes.live import LayerMemory


class _Store(Protocol):
    """A store that can add to the number under a name, 0 at first, and return it."""

    def add(self, key: str, amount: int, /) -> int:
        """Add and return."""


_Chosen = dict[str, tuple[NDArray[np.int32], NDArray[np.int32]]]
"""Layer to the codes of an interval [N], and to the sample of each [N]."""
_BEGUN = itertools.count()
"""Numbers the beginnings of watching in this process: on all ranks alike, where all of them watch."""


@dataclass(kw_only=True, eq=False)
class Watchers:
    """The ranks that watch the same training, as far as they know of one another.

    A rank that waits for one which does not watch would wait for ever: many a script makes its monitor on
    rank zero alone. So each puts itself down in the store of the process group when it begins, and none waits
    unless all have done so. The gradients of a step meet after all of them have begun, and before `settle`.

    Attributes:
        rank: of this process; 0 where the training is not distributed.
        world: how many there are.
        watching: how many of them watch together: all or, as far as `settle` knows, this one alone.
        settled: whether that is known.
    """

    rank: int = 0
    world: int = 1
    watching: int = 1
    settled: bool = False
    _key: str = ""

    @classmethod
    def begin(cls, step: int) -> Self:
        """Return the watchers from a step on, of which this rank is one."""
        group = torch.distributed
        if not (group.is_available() and group.is_initialized()):
            return cls()
        ranks = cls(
            rank=group.get_rank(), world=group.get_world_size(), _key=f"vqdoctor/{next(_BEGUN)}/{step}"
        )
        if (store := _store()) is not None:
            store.add(ranks._key, 1)
        return ranks

    def settle(self) -> None:
        """Find out, after the first step, whether all ranks watch; do nothing after later ones."""
        store = _store() if self.world > 1 and not self.settled else None
        if store is not None and store.add(self._key, 0) == self.world:
            self.watching = self.world
        self.settled = True

    @property
    def idle(self) -> bool:
        """Whether this rank does nothing, as rank zero watches alone."""
        return self.settled and self.rank > 0 and self.watching == 1

    def gather(self, memory: Mapping[str, LayerMemory]) -> None:
        """Give rank zero the codes that all ranks have noted in an interval; the others forget theirs."""
        if self.watching == 1:
            return
        own: _Chosen = {name: one.chosen() for name, one in memory.items()}
        every: list[_Chosen | None] = [None] * self.world
        torch.distributed.all_gather_object(every, own)
        for one in memory.values():
            one.forget()
        for chosen in every if self.rank == 0 else ():
            for name, (codes, samples) in (chosen or {}).items():
                memory[name].add(codes, samples)


def _store() -> _Store | None:
    """Return the store that the ranks share; None where this torch does not give it."""
    try:
        found = torch.distributed.distributed_c10d._get_default_store()
    except (AttributeError, RuntimeError, ValueError):
        return None
    return cast("_Store", found)
