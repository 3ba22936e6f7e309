"""The batches of a retraining: reshuffled where the task can, a tenth held back where it has no "stop"."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, count, islice
from typing import Any, cast

import torch

from vqdoctor.models.device import moved
from vqdoctor.models.task import Batch, Task
from vqdoctor.models.tensors import tensors_of
from vqdoctor.models.untouched import same_randomness

_STRIDE = 1_000_003
HELD_BACK = 10
"""One train batch in ten is held back for early stopping where the task serves no "stop" split."""

SHOWN = 64
"""The val batches whose shapes tell one data set from another: enough to see another size."""


class Splits:
    """The train, stop and val batches of a task, on a device.

    "val" is only ever used for the figures that are quoted. Where the task serves no "stop" split, every
    tenth train batch is held back for it; where it serves fewer than ten, nothing is, and training
    runs its full length. A "stop" that is another split counts as none.
    """

    def __init__(self, task: Task, device: torch.device) -> None:
        self._task = task
        self._device = device

    @cached_property
    def _serves_stop(self) -> bool:
        return next(iter(self._given("stop")), None) is not None and not self.repeats

    @cached_property
    def repeats(self) -> bool:
        """Whether "stop" is answered with another split, as `train if split == "train" else val` does.

        By the first batches; a task whose val split is the train split has no other to keep apart.
        """
        with same_randomness(0):
            first = {name: next(iter(self._given(name)), None) for name in ("stop", "val", "train")}
        stop, val, train = ([*tensors_of(first[name])] for name in ("stop", "val", "train"))
        return not _equal(val, train) and (_equal(stop, val) or _equal(stop, train))

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the batches of `val`: their shapes, and the values of the first one.

        Floats count to three digits, so that a task which computes them has the same on another machine.
        """
        digest = hashlib.sha256()
        with same_randomness(0):
            for number, batch in enumerate(islice(self.val(), SHOWN)):
                for tensor in tensors_of(batch):
                    digest.update(repr((number, tensor.dtype, tuple(tensor.shape))).encode())
                    if not number and not tensor.is_complex():
                        values = tensor.detach().cpu()
                        values = values.half() if values.is_floating_point() else values
                        digest.update(values.numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def holds_back(self) -> bool:
        """Whether a part of the train split is held back."""
        tenth = islice(self._given("train"), HELD_BACK - 1, None)  # a pass may take hours
        return not self._serves_stop and next(tenth, None) is not None

    @property
    def has_stop(self) -> bool:
        """Whether there is anything to stop early by."""
        return self._serves_stop or self.holds_back

    def train(self, seed: int) -> Iterator[Batch]:
        """Yield the batches of one epoch, in an order of that seed where the task can reshuffle them."""
        shuffled = getattr(self._task, "shuffled", None)
        if callable(shuffled) and not self.holds_back:
            yield from map(self._moved, shuffled(seed))
            return
        given = self._given("train")
        kept = (batch for number, batch in enumerate(given) if not (self.holds_back and _is_held(number)))
        if isinstance(given, list | tuple):  # in memory: another order costs nothing
            batches = list(kept)
            order = torch.randperm(len(batches), generator=torch.Generator().manual_seed(seed))
            kept = (batches[number] for number in order.tolist())
        yield from map(self._moved, kept)

    def in_order(self) -> Iterator[Batch]:
        """Yield the train batches in their own order, none held back."""
        return map(self._moved, self._given("train"))

    def stop(self, most: int | None = None) -> Iterator[Batch]:
        """Yield the batches by which training is stopped early, the first `most` of them."""
        given: Iterable[Batch] = ()
        if self._serves_stop:
            given = self._given("stop")
        elif self.holds_back:
            given = (batch for number, batch in enumerate(self._given("train")) if _is_held(number))
        yield from map(self._moved, islice(given, most))

    def val(self) -> Iterator[Batch]:
        """Yield the batches that every quoted figure comes from; the train split where there is no other."""
        empty = True
        for batch in self._given("val"):
            empty = False
            yield self._moved(batch)
        if empty:
            yield from self.in_order()

    def _given(self, split: str) -> Iterable[Batch]:
        return cast("Iterable[Batch]", cast("Any", self._task).batches(split))

    def _moved(self, batch: Batch) -> Batch:
        return moved(batch, self._device)


class Stretches:
    """The train batches of one training, epoch by epoch: whole passes, or stretches of a number of steps."""

    def __init__(self, splits: Splits, seed: int) -> None:
        self._splits = splits
        self._seed = seed
        self._at = -1
        self._batches: Iterator[Batch] = iter(())

    def seed(self, number: int) -> int:
        """Return the seed of an epoch, or of a pass."""
        return (self._seed * _STRIDE + number) % 2**63

    def of(self, number: int, steps: int) -> Iterator[Batch]:
        """Return the batches of an epoch; of a stretch, those that follow on the stretch before it.

        A training that is taken up, or goes back, leaves the batches before it out.

        Args:
            number: the epoch, from 0.
            steps: batches of a stretch; 0 is a whole pass.
        """
        if not steps:
            return self._splits.train(self.seed(number))
        if self._at != number * steps:
            passes = (self._splits.train(self.seed(at)) for at in count())
            self._batches = islice(chain.from_iterable(passes), number * steps, None)
        self._at = (number + 1) * steps
        return islice(self._batches, steps)


def _equal(batch: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> bool:
    """Whether two batches hold the same tensors, and any at all."""
    same = len(batch) == len(other) > 0
    return same and all(torch.equal(one, its) for one, its in zip(batch, other, strict=True))


def _is_held(number: int) -> bool:
    return number % HELD_BACK == HELD_BACK - 1
