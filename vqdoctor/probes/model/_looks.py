"""Looks of many probes at the same passes: every training batch goes forward once, whoever asks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from vqdoctor.capture.step import Step, Steps
from vqdoctor.probes.model._context import ModelContext

T = TypeVar("T")
Looking = Generator[AbstractContextManager[object] | None, Steps | None, T]
"""Gets the steps of one batch after another, then None, and returns what it saw. A context that it yields is
entered for the next pass."""
_LOOKS: list[Look[Any]] = []


@dataclass(frozen=True, kw_only=True, eq=False)
class Look(Generic[T]):
    """One probe's look at the training batches.

    Attributes:
        see: begins the look at a context.
        passes: batches that it needs, from the start again where the split has fewer; None takes those that
            the gradients are measured on.
    """

    see: Callable[[ModelContext], Looking[T]]
    passes: int | Callable[[ModelContext], int] | None = None

    def needs(self, context: ModelContext) -> int | None:
        """Return how many passes it needs at a context."""
        return self.passes(context) if callable(self.passes) else self.passes

    def at(self, context: ModelContext) -> T:
        """Return the look's result; the first look that is asked for lets all of them see the passes.

        Raises:
            Exception: what went wrong in this look, whatever that is.
        """
        if self not in context.looked:
            few, needed = len(context.first_batches), self.needs(context)
            if needed is not None and needed > few:
                _run(context, [self], context.steps(needed))
            else:
                several = [look for look in _LOOKS if (look.needs(context) or 0) <= few]
                _run(context, several, context.steps())
        found: T | Exception = context.looked[self]
        if isinstance(found, Exception):
            raise found
        return found


def shared(
    passes: int | Callable[[ModelContext], int] | None = None,
) -> Callable[[Callable[[ModelContext], Looking[T]]], Look[T]]:
    """Return the decorator that makes a look of a generator function; see `Look`."""

    def registered(see: Callable[[ModelContext], Looking[T]]) -> Look[T]:
        look = Look(see=see, passes=passes)
        _LOOKS.append(look)
        return look

    return registered


def each_step(look: Callable[[ModelContext, Step], T]) -> Look[dict[str, list[T]]]:
    """Return the look that collects, for each layer, the results of `look` on its steps."""

    @shared()
    def see(context: ModelContext) -> Looking[dict[str, list[T]]]:
        found: dict[str, list[T]] = defaultdict(list)
        while (steps := (yield None)) is not None:
            for name, step in steps.items():
                found[name].append(look(context, step))
        return found

    return see


def _run(context: ModelContext, looks: Iterable[Look[Any]], batches: Iterable[Steps]) -> None:
    """Let looks see the batches; what one of them raises is its result, and the others go on."""
    running: dict[Look[Any], Looking[Any]] = {look: look.see(context) for look in looks}

    def advance(look: Look[Any], steps: Steps | None) -> AbstractContextManager[object]:
        try:
            return running[look].send(steps) or nullcontext()
        except StopIteration as done:
            context.looked[look] = done.value
        except Exception as error:
            context.looked[look] = error
        del running[look]
        return nullcontext()

    around = [advance(look, None) for look in [*running]]
    served, steps = iter(batches), None
    while running:
        with ExitStack() as stack:
            for one in around:
                stack.enter_context(one)
            steps = next(served, None)
        chance, around = torch.get_rng_state(), []
        for look in [*running]:
            torch.set_rng_state(chance)  # each look draws as if it were alone
            around.append(advance(look, steps))
        if steps is not None:
            steps.pulls.forget()
