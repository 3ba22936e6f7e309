"""The ranks of a distributed training that watch it together: each adds the codes that it chose."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from vqdoctor.probes.live import LayerMemory


class _Store(Protocol):
    """A store that can add to the number under a name, 0 at first, and return it."""

    def add(self, key: str, amount: int, /) -> int:
        """Add and return."""

    def compare_set(self, key: str, expected: str, desired: str, /) -> object:
        """Set what is under a name, where that is as expected."""


T = TypeVar("T")
_Chosen = dict[str, tuple[NDArray[np.int32], NDArray[np.int32]]]
"""Layer to the codes of an interval [N], and to the sample of each [N]."""
_GENERATION = "vqdoctor/generation"
"""The name under which the store counts the trainings in which anybody watched."""
_BEGUN: Counter[int] = Counter()
"""How many monitors of this process began in a training: on all ranks alike, where all of them watch."""


@dataclass(kw_only=True, eq=False)
class Watchers:
    """The ranks that watch the same training, as far as they know of one another.

    A rank that waits for one which does not watch would wait for ever: many a script makes its monitor on
    rank zero alone. So each puts itself down in the store of the process group when it begins, and none waits
    unless all have done so. The gradients of a step meet after all of them have begun, and before `settle`,
    whose first caller begins the next training: monitors of an earlier one are not counted.

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
    _generation: int = 0
    _key: str = ""

    @classmethod
    def begin(cls, step: int) -> Self:
        """Return the watchers from a step on, of which this rank is one."""
        group = torch.distributed
        if not (group.is_available() and group.is_initialized()):
            return cls()
        ranks = cls(rank=group.get_rank(), world=group.get_world_size())
        if (store := _store()) is not None:
            ranks._generation = store.add(_GENERATION, 0)
            ranks._key = f"vqdoctor/{ranks._generation}/{_BEGUN[ranks._generation]}/{step}"
            _BEGUN[ranks._generation] += 1
            store.add(ranks._key, 1)
        return ranks

    def settle(self) -> None:
        """Find out, after the first step, whether all ranks watch; do nothing after later ones."""
        store = _store() if self.world > 1 and not self.settled else None
        self.settled = True
        if store is None:
            return
        if store.add(self._key, 0) == self.world:
            self.watching = self.world
        self._close(store)

    def end(self) -> None:
        """Watch no more; one that never came to a step is not counted later."""
        store = _store() if self.world > 1 and not self.settled else None
        if store is not None:
            with contextlib.suppress(RuntimeError):  # the store has ended with its process
                self._close(store)

    def _close(self, store: _Store) -> None:
        store.compare_set(_GENERATION, str(self._generation), str(self._generation + 1))
        _BEGUN.pop(self._generation, None)

    @property
    def idle(self) -> bool:
        """Whether this rank does nothing, as rank zero watches alone."""
        return self.settled and self.rank > 0 and self.watching == 1

    def agreed(self, value: T) -> T:
        """Return rank zero's value, where all ranks watch together; else this rank's."""
        if self.watching == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]

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
