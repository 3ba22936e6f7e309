"""Who is examined live: a model with the checkpoint in it, its task, and where its codebooks are.

This is the only module of the engine that needs torch; it is imported where a model is run.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from vqdoctor.checkpoint import Checkpoint
from vqdoctor.core.errors import UserError
from vqdoctor.core.evidence import TrainingRecord
from vqdoctor.core.settings import UserModel
from vqdoctor.engine.batch import Arrays
from vqdoctor.layouts import QuantizerView, StateDict, state_dicts
from vqdoctor.models import hf
from vqdoctor.models.default_task import DefaultTask, batches_of
from vqdoctor.models.load import Loaded, load_state
from vqdoctor.models.names import align
from vqdoctor.models.task import Batch, Losses, Split, Task
from vqdoctor.models.tensors import tensors_of
from vqdoctor.models.untouched import unwrapped_name, working_copy
from vqdoctor.models.user_code import blamed, load_object

BATCHES = 64
"""Batches of a split that are run of a user's own data where --batches says nothing: usage needs 16
vectors a code, which 64 batches of 32 samples of 64 positions reach for K = 8192."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Patient:
    """A model to run, and all that its probes need to know.

    Attributes:
        model: with the checkpoint in it.
        task: guarded: every call of the user's code that fails is a `UserError`.
        views: the VQ layers that the model has.
        codebook_names: layer to the name of its codebook in the model.
        raw_keys: name of a tensor in a copy of the model to its key in the file.
        absent: names of VQ layers of the file that the model does not have.
        load_notes: what the file lacked, and what the model did.
    """

    model: torch.nn.Module
    task: GuardedTask
    views: tuple[QuantizerView, ...]
    codebook_names: Mapping[str, str]
    raw_keys: Mapping[str, str]
    absent: tuple[str, ...] = ()
    load_notes: tuple[str, ...] = ()

    @property
    def vq_loss_unknown(self) -> bool:
        """Whether a default task has run and recognised no VQ loss."""
        return bool(getattr(self.task, "vq_loss_unknown", False))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was loaded, and what the task says about itself once it has run; one line each."""
        return (*self.load_notes, *self.task.notes)


def admit(
    *,
    path: Path | None,
    checkpoint: Checkpoint,
    views: Sequence[QuantizerView],
    record: TrainingRecord | None,
    arrays: Arrays | None,
    data: Any,
    user_model: UserModel,
    batches: int | None,
) -> Patient:
    """Build the model and the task that the user brings, or that the file names among the built-in ones.

    Args:
        path: the checkpoint; None where the model is live and holds what is examined already.
        checkpoint: it, opened.
        views: its VQ layers.
        record: what it records of the training.
        arrays: the data, where it is arrays.
        data: the data as the user gave it.
        user_model: the user's code.
        batches: how many batches of a split are run.

    Raises:
        UserError: if something is missing, does not fit, or fails.
    """
    state = _state_of(checkpoint, views)
    task, loaded = _task(path, checkpoint, state, record, arrays, data, batches or BATCHES, user_model)
    guarded = GuardedTask(task, user_model.trained_vq_weight, batches or _unasked(user_model))
    model = user_model.model if path is None else guarded.model()
    if not isinstance(model, torch.nn.Module):
        raise UserError(f"the model is a {type(model).__name__}", "return a torch.nn.Module")
    clean = {raw: name for name, raw in state.raw.items()}
    codebooks = {view.name: clean[view.keys["codebook"]] for view in views}
    anchor = next(iter(codebooks.values()), next(iter(state.entries)))
    mapped = align(model.state_dict().keys(), state, anchor)
    if path is not None and loaded is None:
        loaded = _load(model, state, mapped)
    own = {theirs: ours for ours, theirs in mapped.items()}
    names = {layer: own[name] for layer, name in codebooks.items() if name in own}
    if codebooks and not names:
        raise UserError(
            f"the model has no {anchor!r}, which is the checkpoint's codebook",
            "build the model that the checkpoint was saved from",
        )
    return Patient(
        model=model,
        task=guarded,
        views=tuple(view for view in views if view.name in names),
        codebook_names=names,
        raw_keys={unwrapped_name(model, ours): state.raw[theirs] for ours, theirs in mapped.items()},
        absent=tuple(view.name for view in views if view.name not in names),
        load_notes=() if loaded is None else tuple(_told(loaded)),
    )


def as_stored(view: QuantizerView, patient: Patient) -> QuantizerView:
    """Return a view of a layer found in the model with the keys that its tensors have in the file."""
    return replace(view, keys={role: patient.raw_keys.get(key, key) for role, key in view.keys.items()})


def _unasked(user_model: UserModel) -> int | None:
    """Return how many batches are run where the user does not say: all of a file's, which is in memory."""
    return None if user_model.task is None and user_model.losses is None else BATCHES


def _state_of(checkpoint: Checkpoint, views: Sequence[QuantizerView]) -> StateDict:
    """Return the state dict that holds the VQ layers; without any, the largest."""
    wanted = {view.keys["codebook"] for view in views}
    states = [state for state in state_dicts(checkpoint.tensors) if wanted <= set(state.raw.values())]
    if not states:
        what = (
            "the VQ layers are not all in one state dict" if views else "the file holds no tensors of a model"
        )
        raise UserError(what, "--layer picks one" if views else "give the model's checkpoint")
    return max(states, key=lambda state: len(state.entries))


def _task(
    path: Path | None,
    checkpoint: Checkpoint,
    state: StateDict,
    record: TrainingRecord | None,
    arrays: Arrays | None,
    data: Any,
    most: int,
    user_model: UserModel,
) -> tuple[Task, Loaded | None]:
    """Return the task, and what became of the load where building the model includes it."""
    if user_model.task is not None:
        return _users_task(user_model.task), None
    if user_model.model is None:
        return _built_in(record.task if record else None, checkpoint.tree, arrays), None
    batches: Mapping[str, Sequence[Batch]]
    if user_model.losses is not None:
        batches = _all_alike(_several(data, most))
    elif arrays is not None and "x" in arrays:
        batches = batches_of(arrays, record.batch_size if record else None)
    elif _is_loader(data):
        batches = _all_alike([_named(item) for item in _several(data, most)])
    else:
        given = "no batch" if data is None else ", ".join(arrays) if arrays else _describe(data)
        raise UserError(f"a model needs a batch with x (and y); given is {given}", "--data BATCH, or --task")
    model, loaded = _model(path, state, user_model)
    if user_model.losses is not None:
        return _Script(model, batches, user_model.losses), loaded
    vq_loss = user_model.vq_loss or hf.VQ_LOSS.get(type(model).__name__)
    return DefaultTask(model, batches, vq_loss=vq_loss, task_loss=user_model.task_loss), loaded


def _all_alike(batches: list[Batch]) -> dict[str, Sequence[Batch]]:
    """Return the splits of data that is not split: all serve the same, which usage counts once."""
    return {"train": batches, "val": batches}


def _users_task(named: Any) -> Task:
    """Import a task where it is named; make it where a class or a function is given."""
    task = load_object(named, "--task") if isinstance(named, str) else named
    what = f"--task {named}" if isinstance(named, str) else "the task"
    if isinstance(task, type) or (callable(task) and not hasattr(task, "losses")):
        with blamed(what):
            task = task()
    lacking = [name for name in ("model", "batches", "losses") if not callable(getattr(task, name, None))]
    if lacking:
        raise UserError(
            f"{what}: a {type(task).__name__} without {', '.join(f'{name}()' for name in lacking)}",
            "a Task has model(), batches(split), losses(model, batch) and vq_weight",
        )
    weight = getattr(task, "vq_weight", None)
    if weight is not None and not _is_weight(weight):
        raise UserError(f"{what}: vq_weight is {weight!r}", "write a finite number, or None for unknown")
    return cast("Task", task)


def _is_weight(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _built_in(name: str | None, tree: Any, arrays: Arrays | None) -> Task:
    """Return the built-in task of that name; a name from a file never becomes an import."""
    from vqdoctor.reference import BUILTIN_TASKS

    if name is None:
        raise UserError(
            "the batch has x, but the checkpoint does not say which built-in task it belongs to",
            "name your model with --model PKG.MODULE:FACTORY or your task with --task FILE.py:NAME, or "
            "dump z_e or the indices of your VQ layer into the batch instead",
        )
    if name not in BUILTIN_TASKS:
        raise UserError(
            f"the checkpoint names the task {name!r}, which is not built in",
            f"the built-in tasks are {', '.join(BUILTIN_TASKS)}",
        )
    config = tree.get("config") if isinstance(tree, dict) else None
    with blamed(f"the batch does not fit {name}"):
        return BUILTIN_TASKS[name](config if isinstance(config, dict) else {}, arrays or {})


def _model(
    path: Path | None, state: StateDict, user_model: UserModel
) -> tuple[torch.nn.Module, Loaded | None]:
    if path is not None and isinstance(user_model.model, str) and user_model.model == "hf":
        return hf.load(path, {state.raw[name]: tensor for name, tensor in state.entries.items()})
    factory = (
        load_object(user_model.model, "--model") if isinstance(user_model.model, str) else user_model.model
    )
    if isinstance(factory, torch.nn.Module):
        # A model that a script holds is not loaded into; a copy of it is.
        return (factory if path is None else working_copy(factory, training=True)), None
    what = f"--model {user_model.model}" if isinstance(user_model.model, str) else "the model"
    if not callable(factory):
        raise UserError(f"{what}: is a {type(factory).__name__}", "name a function or class that builds it")
    with blamed(what, "--model-arg K=V gives the factory its arguments"):
        return factory(**user_model.model_args), None


def _load(model: torch.nn.Module, state: StateDict, mapped: Mapping[str, str]) -> Loaded:
    found = {ours: state.entries[theirs] for ours, theirs in mapped.items()}
    load = load_state(model, found or state.entries)
    used = set(mapped.values())
    unexpected = tuple(state.raw[name] for name in state.entries if name not in used)
    return Loaded(missing=load.missing, unexpected=unexpected)


def _told(loaded: Loaded) -> Iterator[str]:
    if loaded.missing:
        yield f"in the model but not in the file, left as built: {_few(loaded.missing)}"
    if loaded.unexpected:
        yield f"in the file but not in the model: {_few(loaded.unexpected)}"


def _few(names: Sequence[str], shown: int = 8) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _is_loader(batch: Batch) -> bool:
    return isinstance(batch, torch.utils.data.DataLoader)


def _several(batch: Batch, most: int) -> list[Batch]:
    """Return a loader's first batches, which then are the same at every look; else the one batch."""
    if not _is_loader(batch):
        return [batch]
    with blamed("the loader"):
        return list(itertools.islice(batch, most))


def _named(item: Any) -> dict[str, torch.Tensor]:
    """Return a loader's batch with the names x and y."""
    if isinstance(item, Mapping) and "x" in item:
        return {name: value for name, value in item.items() if isinstance(value, torch.Tensor)}
    parts = [item] if isinstance(item, torch.Tensor) else item
    if isinstance(parts, tuple | list) and parts and all(isinstance(p, torch.Tensor) for p in parts[:2]):
        return dict(zip(("x", "y"), parts, strict=False))
    raise UserError(f"a batch of the loader is {_describe(item)}", "give losses=, or a task")


class _Script:
    """The model, the batches and the losses of a script; satisfies `Task`."""

    vq_weight: float | None = None

    def __init__(
        self,
        model: torch.nn.Module,
        batches: Mapping[str, Sequence[Batch]],
        losses: Callable[[torch.nn.Module, Batch], Any],
    ) -> None:
        self._model = model
        self._batches = batches
        self.losses = losses

    def model(self) -> torch.nn.Module:
        return self._model

    def batches(self, split: Split) -> Sequence[Batch]:
        return self._batches.get(split, ())


class GuardedTask:
    """A Task whose failures are one clear line, and whose losses have all the fields.

    Attributes:
        vq_weight: the task's, else the one that the user told.
    """

    def __init__(self, task: Task, told_weight: float | None, most: int | None) -> None:
        """Guard a task.

        Args:
            task: the user's, or ours.
            told_weight: weight of the VQ loss for a task that knows none.
            most: batches of a split that are served; None is all.
        """
        own = getattr(task, "vq_weight", None)
        self.vq_weight: float | None = own if own is not None else told_weight
        self._task = task
        self._most = most
        self._served: dict[str, Any] = {}
        self._cut: dict[str, None] = {}
        self._ran = False
        self._said: list[str] = []
        if own is not None and told_weight is not None and own != told_weight:
            self._said.append(f"--trained-vq-weight {told_weight:g} is not used: the task says {own:g}")

    def whole(self) -> GuardedTask:
        """Return the same task with all batches of every split."""
        return GuardedTask(self._task, self.vq_weight, None)

    def __getattr__(self, name: str) -> Any:
        """Pass on what a task may have more, such as `optimizer`."""
        return getattr(self._task, name)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of how the task was used, one line each."""
        cut = [f"only the first {self._most} batches of {split} were run" for split in self._cut]
        more = [f"{', '.join(cut)} (--batches N)"] if cut else []
        return (*getattr(self._task, "notes", ()), *self._said, *more)

    def model(self) -> torch.nn.Module:
        """Return the task's model."""
        with blamed("task.model()"):
            return self._task.model()

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
        """Return the task's losses of a batch, each a scalar with its graph.

        Raises:
            UserError: if the task fails, or they are something else.
        """
        with contextlib.ExitStack() as stack:
            called = self._listen(stack, model)
            stack.enter_context(blamed(f"the task fails on a batch of {_describe(batch)}"))
            found = self._task.losses(model, batch)
        if not (self._ran or called):
            raise UserError(
                "task.losses(model, batch) does not run the model that it is given",
                "run that one: it is a copy of yours",
            )
        self._ran = True
        if not hasattr(found, "task"):
            raise UserError(
                f"task.losses() returns a {type(found).__name__} without the field `task`",
                "return vqdoctor.Losses(task=…, vq=…)",
            )
        task = _scalar("task", found.task)
        assert task is not None
        trained = any(p.requires_grad for p in model.parameters())
        if torch.is_grad_enabled() and trained and not task.requires_grad:
            raise UserError(
                "task.losses().task has no graph", "return the tensor itself, without no_grad, detach or item"
            )
        return Losses(
            task=task,
            vq=_scalar("vq", getattr(found, "vq", None)),
            logits=getattr(found, "logits", None),
            labels=getattr(found, "labels", None),
        )

    def _listen(self, stack: contextlib.ExitStack, model: torch.nn.Module) -> list[None]:
        """Return a list that is no longer empty once a module of the model has run."""
        called: list[None] = []
        if not self._ran:
            for module in model.modules():
                handle = module.register_forward_pre_hook(lambda *_: called.append(None))
                stack.callback(handle.remove)
        return called


_END = object()


def _scalar(name: str, value: Any) -> torch.Tensor | None:
    if value is None and name != "task":
        return None
    if not isinstance(value, torch.Tensor):
        raise UserError(
            f"task.losses().{name} is a {type(value).__name__}", "return the tensor, with its graph"
        )
    if value.numel() != 1:
        raise UserError(
            f"task.losses().{name} has the shape {list(value.shape)}", "return one number, as you train with"
        )
    return value.reshape(())


def _describe(batch: Batch) -> str:
    """Say what a batch is: its type, and the shapes of the tensors in it."""
    if isinstance(batch, dict):
        shapes = [f"{k} {list(v.shape)}" for k, v in batch.items() if isinstance(v, torch.Tensor)]
    else:
        shapes = [str(list(t.shape)) for t in tensors_of(batch)]
    return f"{type(batch).__name__} ({', '.join(shapes[:6])})" if shapes else type(batch).__name__


@contextlib.contextmanager
def saved(model: torch.nn.Module, optimizer: torch.optim.Optimizer | None) -> Iterator[Path]:
    """Save a live model as its checkpoint would be, for as long as it is examined.

    So a live model is told all that a file is: EMA counts against sums, what Adam remembers.
    """
    if not isinstance(model, torch.nn.Module):
        raise UserError(f"a {type(model).__name__} is neither a checkpoint nor a model", "give one of them")
    state: dict[str, Any] = model.state_dict()
    if optimizer is not None:
        state = {"model": state, "optimizer": optimizer.state_dict()}
    with tempfile.TemporaryDirectory(prefix="vqdoctor-", ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "model.pt"
        torch.save(state, file)
        yield file


@contextlib.contextmanager
def same_randomness(seed: int) -> Iterator[None]:
    """Seed torch, numpy and Python inside, for the user's code, and restore them outside."""
    python, old = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(old)
