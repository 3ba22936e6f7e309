"""The ranks of a distributed training that watch it together: each adds the codes that it chose."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from vqdoctor.probes.live import LayerMemory

T = TypeVar("T")


class _Store(Protocol):
    """A store that can add to the number under a name, 0 at first, and return it."""

    def add(self, key: str, amount: int, /) -> int:
        """Add and return."""


_Chosen = dict[str, tuple[NDArray[np.int32], NDArray[np.int32]]]
"""Layer to the codes of an interval [N], and to the sample of each [N]."""
_BEGUN: defaultdict[str, int] = defaultdict(int)
"""The beginnings of watching in this process, for each model."""


@dataclass(kw_only=True, eq=False)
class Watchers:
    """The ranks that watch the same training, as far as they know of one another.

    A rank that waits for one which does not watch would wait for ever: many a script makes its monitor on
    rank zero alone. So each puts itself down in the store of the process group when it begins, and none waits
    unless all have done so. The gradients of a step meet after all of them have begun, and before `settle`.
    It puts itself down for a model and a number; a number is closed once its first step is done, so that a
    monitor that one rank had alone does not count beside a later one of all.

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
    _step: int = 0

    @classmethod
    def begin(cls, step: int, model: str) -> Self:
        """Return the watchers of a model from a step on, of which this rank is one.

        Args:
            step: optimizer steps done.
            model: a name of the model, on all ranks the same.
        """
        group = torch.distributed
        if not (group.is_available() and group.is_initialized()):
            return cls()
        ranks = cls(rank=group.get_rank(), world=group.get_world_size())
        if (store := _store()) is not None:
            while store.add(f"vqdoctor/{model}/{_BEGUN[model]}/closed", 0):
                _BEGUN[model] += 1
            ranks._key = f"vqdoctor/{model}/{_BEGUN[model]}"
            ranks._step = step
            _BEGUN[model] += 1
            store.add(f"{ranks._key}/{step}", 1)
        return ranks

    def settle(self) -> None:
        """Find out, after the first step or at the end, whether all ranks watch; later do nothing."""
        store = _store() if self.world > 1 and not self.settled else None
        if store is not None:
            self.watching = self.world if store.add(f"{self._key}/{self._step}", 0) == self.world else 1
            store.add(f"{self._key}/closed", 1)
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
        every = self._of_all(own)
        for one in memory.values():
            one.forget()
        for chosen in every if self.rank == 0 else ():
            for name, (codes, samples) in chosen.items():
                memory[name].add(codes, samples)

    def total(self, counts: torch.Tensor) -> torch.Tensor:
        """Return the sum of all ranks' counts."""
        return torch.stack(self._of_all(counts)).sum(0)

    def of_first(self, vectors: torch.Tensor | None) -> torch.Tensor | None:
        """Return rank zero's vectors, on the CPU."""
        own = None if vectors is None or self.rank else vectors.detach().float().cpu()
        return self.agreed(own)

    def agreed(self, value: T) -> T:
        """Return rank zero's value; where this rank watches alone, its own."""
        if self.watching == 1:
            return value
        told = [value]
        torch.distributed.broadcast_object_list(told, src=0)
        return told[0]

    def _of_all(self, own: T) -> list[T]:
        """Return the values of all ranks, in their order."""
        every = [own] * self.world
        torch.distributed.all_gather_object(every, own)
        return every


def _store() -> _Store | None:
    """Return the store that the ranks share; None where this torch does not give it."""
    try:
        found = torch.distributed.distributed_c10d._get_default_store()
    except (AttributeError, RuntimeError, ValueError):
        return None
    return cast("_Store", found)
