"""The batches of a retraining: shuffled, and a tenth held back where the task has no "stop"."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, count, islice
from typing import Any, cast

import torch

from vqdoctor.models.device import moved
from vqdoctor.models.task import Batch, Task
from vqdoctor.models.tensors import places, tensors_of
from vqdoctor.models.untouched import same_randomness
from vqdoctor.training.mixing import redrawn

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

    def __init__(
        self,
        task: Task,
        device: torch.device,
        of_samples: Callable[[Batch], bool] = lambda _: False,
        in_order: Callable[[Sequence[Batch]], bool] = lambda _: False,
    ) -> None:
        """Take the batches of a task.

        Args:
            task: the task.
            device: where the batches are moved.
            of_samples: whether the samples of a batch may be drawn into others.
            in_order: whether a batch must come after the one before it, of two.
        """
        self._task = task
        self._device = device
        self._of_samples = of_samples
        self._in_order = in_order

    @cached_property
    def _serves_stop(self) -> bool:
        return next(iter(self._given("stop")), None) is not None and not self.repeats

    @cached_property
    def repeats(self) -> bool:
        """Whether "stop" is answered with another split, as `train if split == "train" else val` does.

        By the tensors of the first batches that both have: the labels may be missing. A task whose val split
        is the train split has no other to keep apart.
        """
        stop, val, train = (self._first(name) for name in ("stop", "val", "train"))
        return not _alike(val, train) and (_alike(stop, val) or _alike(stop, train))

    @cached_property
    def mixes(self) -> bool:
        """Whether samples are drawn into other batches at every pass, as their own order is fixed."""
        if self.shuffles_itself:
            return False
        return _alike(self._first("train"), self._first("train", seed=1)) and self.can_mix

    @property
    def shuffles_itself(self) -> bool:
        """Whether the task serves an order of its own for every seed, and no part of train is held back."""
        return callable(getattr(self._task, "shuffled", None)) and not self.holds_back

    @cached_property
    def can_mix(self) -> bool:
        """Whether samples can be drawn into other batches at all."""
        first = next(iter(self._given("train")), None)
        return first is not None and not self.keeps_order and self._of_samples(self._moved(first))

    @cached_property
    def keeps_order(self) -> bool:
        """Whether the batches must come as they are served: something is carried from one to the next."""
        return self._in_order([*map(self._moved, islice(self._given("train"), 2))])

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

    def train(self, seed: int, *, shuffled: bool = False) -> Iterator[Batch]:
        """Yield the batches of one epoch, in an order of that seed where they come in a fixed one.

        Args:
            seed: seed of the epoch.
            shuffled: whether samples are drawn into other batches, in whatever order they come.
        """
        if self.shuffles_itself:
            yield from map(self._moved, cast("Any", self._task).shuffled(seed))
            return
        given = self._given("train")
        kept: Iterator[Batch] = iter(given)
        if self.holds_back:
            kept = (batch for number, batch in enumerate(given) if not _is_held(number))
        if self.can_mix if shuffled else self.mixes:
            kept = redrawn(kept, torch.Generator().manual_seed(seed))
        elif isinstance(given, list | tuple) and not self.keeps_order:  # in memory, where it costs nothing
            batches = list(kept)
            order = torch.randperm(len(batches), generator=torch.Generator().manual_seed(seed))
            kept = iter([batches[number] for number in order.tolist()])
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

    def _first(self, split: str, seed: int = 0) -> Batch:
        """Return the first batch of a split, drawn with that seed; None where it is empty."""
        with same_randomness(seed):
            return next(iter(self._given(split)), None)

    def _given(self, split: str) -> Iterable[Batch]:
        return cast("Iterable[Batch]", cast("Any", self._task).batches(split))

    def _moved(self, batch: Batch) -> Batch:
        return moved(batch, self._device)


class Stretches:
    """The train batches of one training, epoch by epoch: whole passes, or stretches of a number of steps."""

    def __init__(self, splits: Splits, seed: int, *, shuffled: bool = False) -> None:
        self._splits = splits
        self._seed = seed
        self._shuffled = shuffled
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
            return self._pass(number)
        if self._at != number * steps:
            passes = (self._pass(at) for at in count())
            self._batches = islice(chain.from_iterable(passes), number * steps, None)
        self._at = (number + 1) * steps
        return islice(self._batches, steps)

    def _pass(self, number: int) -> Iterator[Batch]:
        return self._splits.train(self.seed(number), shuffled=self._shuffled)


def _alike(one: Batch, other: Batch) -> bool:
    """Whether two batches have a tensor in the same place, and all of these are equal."""
    theirs = dict(places(other, _itself))
    pairs = [(tensor, theirs.get(at)) for at, tensor in places(one, _itself)]
    both = [(a, b) for a, b in pairs if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)]
    return bool(both) and all(torch.equal(a, b) for a, b in both)


def _itself(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _is_held(number: int) -> bool:
    return number % HELD_BACK == HELD_BACK - 1
