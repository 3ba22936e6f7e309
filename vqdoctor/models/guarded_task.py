"""A Task whose failures are one clear line: the user's code is only called through it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any, cast

import torch

from vqdoctor.core.errors import UserError
from vqdoctor.models.lookups import lookups_shown
from vqdoctor.models.process_group import as_all_processes
from vqdoctor.models.roundings import roundings_shown
from vqdoctor.models.sharded import gathered
from vqdoctor.models.stepped_task import SteppedTask
from vqdoctor.models.task import Batch, Losses, Split, Task
from vqdoctor.models.tensors import tensors_of
from vqdoctor.models.user_code import blamed

_END = object()


class GuardedTask:
    """A Task whose failures are one clear line, and whose losses have all the fields.

    Attributes:
        vq_weight: the task's, else the user's --trained-vq-weight.
    """

    def __init__(
        self, task: Task, told_weight: float | None, most: int | None, mask: str | None = None
    ) -> None:
        """Guard a task.

        Args:
            task: the user's, or ours.
            told_weight: weight of the VQ loss for a task without one.
            most: batches of a split that are served; None is all.
            mask: the entry of a batch that says which positions are data; None leaves it to the task.
        """
        own = getattr(task, "vq_weight", None)
        self.vq_weight: float | None = own if own is not None else told_weight
        # around a guarded task its own `step` is always there, and says nothing
        trains = getattr(task, "trains_itself", callable(getattr(task, "step", None)))
        steps = trains and not isinstance(task, SteppedTask)
        self._task: Task | SteppedTask = SteppedTask(task) if steps else task
        self._most = most
        self._mask = mask
        self._served: dict[str, object] = {}
        self._cut: dict[Split, None] = {}
        self._ran = False
        self._said: list[str] = []
        if own is not None and told_weight is not None and own != told_weight:
            self._said.append(f"--trained-vq-weight {told_weight:g} is not used: the task says {own:g}")

    def whole(self) -> GuardedTask:
        """Return the same task with all batches of every split."""
        return GuardedTask(cast("Task", self._task), self.vq_weight, None, self._mask)

    def __getattr__(self, name: str) -> Any:
        """Pass on the other attributes of the task, such as `optimizer`."""
        return getattr(self._task, name)

    @property
    def trains_itself(self) -> bool:
        """Whether the task has a `step` that trains each batch."""
        return isinstance(self._task, SteppedTask)

    @property
    def cut(self) -> Collection[Split]:
        """The splits of which only the first batches were served so far."""
        return self._cut

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the use of the task, one line each."""
        cut = [f"only the first {self._most} batches of {split} were run" for split in self._cut]
        more = [f"{', '.join(cut)} (--batches N)"] if cut else []
        return (*getattr(self._task, "notes", ()), *self._said, *more)

    def model(self) -> torch.nn.Module:
        """Return the task's model, whole where its processes share it."""
        with blamed("task.model()"), as_all_processes():
            model: object = self._task.model()
            return cast("torch.nn.Module", gathered(model) if isinstance(model, torch.nn.Module) else model)

    def batches(self, split: Split) -> Iterator[Batch]:
        """Yield the first batches of a split.

        Raises:
            UserError: if "train" is empty, or a split that has been served before now is.
        """
        doing = f"task.batches({split!r})"
        try:
            with blamed(doing):
                given = self._task.batches(cast("Any", split))
                batches = iter(given)
        except UserError:
            if split == "stop":  # a Task need not serve it; however it says so, there is nothing
                return
            raise
        if batches is given and self._served.get(split) is batches:
            raise UserError(f"{doing} gave the same iterator twice", "return a fresh one at every call")
        amount = 0
        while True:
            try:
                with blamed(f"{doing}, batch {amount}"):
                    batch = next(batches, _END)
            except UserError:
                if split == "stop" and not amount:  # a generator says so only now
                    return
                raise
            if batch is _END or amount == self._most:
                break
            amount += 1
            self._served[split] = batches
            yield batch
        if batch is not _END:
            self._cut[split] = None
        elif not amount and split in self._served:
            raise UserError(f"{doing} is empty the second time", "return a fresh iterable at every call")
        elif not amount and split == "train":
            raise UserError(f"{doing} is empty", "gradients are measured on training batches")

    def losses(self, model: torch.nn.Module, batch: Batch) -> Losses:
        """Return the task's losses of a batch, each a scalar with its graph where autograd records one.

        Raises:
            UserError: if the task fails, or they are something else.
        """
        doing = "losses"
        if isinstance(self._task, SteppedTask) and not self._task.has_losses:
            doing = "step"
        found = self._called(doing, self._task.losses, model, batch)
        trained = any(p.requires_grad for p in model.parameters())
        if torch.is_grad_enabled() and trained and not found.task.requires_grad:
            hint = "return the tensor itself, without no_grad, detach or item"
            raise UserError(f"task.{doing}().task has no graph", hint)
        return found if torch.is_grad_enabled() else _detached(found)

    def step(self, model: torch.nn.Module, batch: Batch) -> Losses:
        """Train a model on a batch by the task's own step, and return its losses without a graph.

        Raises:
            UserError: if the step fails, or returns something else.
        """
        assert isinstance(self._task, SteppedTask)
        return _detached(self._called("step", self._task.step, model, batch))

    def _called(
        self, doing: str, call: Callable[[torch.nn.Module, Batch], Any], model: torch.nn.Module, batch: Batch
    ) -> Losses:
        called: list[None] = []
        with contextlib.ExitStack() as stack:
            for module in () if self._ran else model.modules():
                handle = module.register_forward_pre_hook(lambda *_: called.append(None))
                stack.callback(handle.remove)
            stack.enter_context(blamed(f"the task fails on a batch of {describe(batch)}"))
            stack.enter_context(lookups_shown(model))
            stack.enter_context(roundings_shown(model))
            found: Any = call(model, batch)
        if not (self._ran or called):
            what = f"task.{doing}(model, batch) does not run the model that it is given"
            raise UserError(what, "run that one: it is a copy of yours")
        self._ran = True
        kind = type(found).__name__
        if isinstance(found, Mapping):  # as many training loops keep their losses
            found = SimpleNamespace(**{str(name): value for name, value in found.items()})
        where = f"task.{doing}()"
        if not hasattr(found, "task"):
            what = f"{where} returns a {kind} without the field `task`"
            raise UserError(what, "return vqdoctor.Losses(task=…, vq=…)")
        task = _scalar(f"{where}.task", found.task)
        vq = getattr(found, "vq", None)
        return Losses(
            task=task,
            vq=None if vq is None else _scalar(f"{where}.vq", vq),
            logits=_tensor(f"{where}.logits", getattr(found, "logits", None)),
            labels=_tensor(f"{where}.labels", getattr(found, "labels", None)),
            mask=self._mask_of(where, found, batch),
            further=tuple(_further(where, getattr(found, "further", ()))),
        )

    def _mask_of(self, where: str, found: object, batch: Batch) -> torch.Tensor | None:
        """Return which positions are data: by the entry that the user names, else by the task.

        Raises:
            UserError: if the batch has no such entry.
        """
        if self._mask is None:
            return _tensor(f"{where}.mask", getattr(found, "mask", None))
        mask = batch.get(self._mask) if isinstance(batch, dict) else None
        if not isinstance(mask, torch.Tensor):
            hint = "name an entry of the batch, or return vqdoctor.Losses(…, mask=…) from the task"
            raise UserError(f"--mask {self._mask}: the batch is {describe(batch)}", hint)
        return mask


def _tensor(name: str, value: object) -> torch.Tensor | None:
    if value is not None and not isinstance(value, torch.Tensor):
        raise UserError(f"{name} is a {type(value).__name__}", "return a tensor, or leave it out")
    return value


def _scalar(name: str, value: object) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        raise UserError(f"{name} is a {type(value).__name__}", "return the tensor, with its graph")
    if value.numel() != 1:
        raise UserError(f"{name} has the shape {list(value.shape)}", "return one number, as you train with")
    return value.reshape(())


def _further(where: str, value: object) -> Iterator[torch.Tensor]:
    for loss in value if isinstance(value, list | tuple) else (value,):
        if loss is not None:
            yield _scalar(f"{where}.further", loss)


def _detached(found: Losses) -> Losses:
    given = ((field.name, getattr(found, field.name)) for field in fields(found))
    own = {name: value.detach() for name, value in given if isinstance(value, torch.Tensor)}
    return replace(found, **own, further=tuple(loss.detach() for loss in found.further))


def describe(batch: Batch) -> str:
    """Say what a batch is: its type, and the shapes of the tensors in it."""
    if isinstance(batch, dict):
        shapes = [f"{k} {list(v.shape)}" for k, v in batch.items() if isinstance(v, torch.Tensor)]
    else:
        shapes = [str(list(t.shape)) for t in tensors_of(batch)]
    return f"{type(batch).__name__} ({', '.join(shapes[:6])})" if shapes else type(batch).__name__
