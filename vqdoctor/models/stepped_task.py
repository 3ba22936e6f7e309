"""A Task that trains each batch by itself, as a GAN does: its step taken, and its losses without a step."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch

from vqdoctor.models.task import Batch


class SteppedTask:
    """A task with a `step(model, batch)`, of which each model gets a copy with optimizers of its own.

    A task keeps its optimizers between `optimizer` and `step`, and often counts its steps. So several
    models, such as copies under examination and the trainings of a trial, must not share it.
    """

    def __init__(self, task: Any) -> None:
        """Take a user's task, which has `optimizer` and `step`."""
        self._task = task
        self._copies: WeakKeyDictionary[torch.nn.Module, Any] = WeakKeyDictionary()
        self._optimizers: WeakKeyDictionary[torch.nn.Module, Any] = WeakKeyDictionary()

    def __getattr__(self, name: str) -> Any:
        """Pass on the other attributes of the task, such as `batches`."""
        return getattr(self._task, name)

    @property
    def has_losses(self) -> bool:
        """Whether the task has `losses` too."""
        return callable(getattr(self._task, "losses", None))

    def optimizer(self, model: torch.nn.Module) -> Any:
        """Return new optimizers of a model, which its steps use from then on."""
        own = copy.copy(self._task)
        self._copies[model], self._optimizers[model] = own, own.optimizer(model)
        return self._optimizers[model]

    def step(self, model: torch.nn.Module, batch: Batch) -> object:
        """Train a model on a batch, and return the result of the task's step."""
        return self._of(model).step(model, batch)

    def losses(self, model: torch.nn.Module, batch: Batch) -> object:
        """Return the task's losses of a batch; without `losses`, those of a step that moves nothing."""
        if self.has_losses:
            return self._task.losses(model, batch)
        own = self._of(model)
        given = self._optimizers[model]
        with _still(given if isinstance(given, list | tuple) else (given,)), torch.enable_grad():
            return own.step(model, batch)

    def state_of(self, model: torch.nn.Module) -> object:
        """Return the task's own state of a model's training, by its `state_dict`; None where it has none."""
        state = getattr(self._of(model), "state_dict", None)
        return state() if callable(state) else None

    def take_up(self, model: torch.nn.Module, state: object) -> None:
        """Take up what `state_of` returned."""
        if state is not None:
            self._of(model).load_state_dict(state)

    def _of(self, model: torch.nn.Module) -> Any:
        if model not in self._copies:
            self.optimizer(model)
        return self._copies[model]


@contextlib.contextmanager
def _still(optimizers: Iterable[torch.optim.Optimizer]) -> Iterator[None]:
    """Let backward passes and optimizers do nothing while the context lasts.

    The graph stays whole for a gradient of what the step returns.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_idle(vars(torch.autograd), "backward"))  # Tensor.backward calls it too
        for optimizer in optimizers:
            for name in ("step", "zero_grad"):
                stack.enter_context(_idle(vars(optimizer), name))
        yield


@contextlib.contextmanager
def _idle(names: dict[str, Any], name: str) -> Iterator[None]:
    before = dict(names)
    names[name] = lambda *_, **__: None
    try:
        yield
    finally:
        del names[name]
        if name in before:
            names[name] = before[name]
