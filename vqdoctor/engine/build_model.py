"""Building the examined model: the user's model and task, or built-in ones, with the checkpoint in them.

This module needs torch; it is imported where a model is run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from vqdoctor.checkpoint import Checkpoint
from vqdoctor.core.errors import UserError
from vqdoctor.engine.batch import Arrays, require_values
from vqdoctor.layouts import QuantizerView, StateDict, state_dicts
from vqdoctor.models import hf
from vqdoctor.models.default_task import BATCH_SIZE, NEEDS, DefaultTask, batches_of, input_name
from vqdoctor.models.examined import ExaminedModel
from vqdoctor.models.guarded_task import GuardedTask, describe
from vqdoctor.models.load import Loaded, load_state
from vqdoctor.models.names import align
from vqdoctor.models.partial import UNEXPECTED, absent_levels, few_names, silence, untrained
from vqdoctor.models.task import Batch, Losses, Split, Task
from vqdoctor.models.untouched import unwrapped_name, working_copy
from vqdoctor.models.user_code import blamed, load_object
from vqdoctor.saved.arguments import RECORDED, differences, recorded_arguments

if TYPE_CHECKING:
    from vqdoctor.engine.session import Session

BATCHES = 64
"""Batches of each split of a user's own data that are run without --batches: usage needs 16 vectors per code,
which 64 batches of 32 samples of 64 positions reach for K = 8192."""


def build_model(session: Session) -> ExaminedModel:
    """Build the model and the task that the user names, or that the file names among the built-in ones.

    Raises:
        UserError: if a part is missing, does not fit, or fails.
    """
    user_model, views, live = session.user_model, session.found.views, session.path is None
    state = _state_of(session.checkpoint, views)
    task, loaded, told = _task(session, state)
    own_data = user_model.task is not None or user_model.losses is not None
    most = session.settings.batches or (BATCHES if own_data else None)  # a batch file is in memory: all of it
    guarded = GuardedTask(task, user_model.trained_vq_weight, most, session.settings.mask)
    model = user_model.model if live else guarded.model()
    if not isinstance(model, torch.nn.Module):
        raise UserError(f"the model is a {type(model).__name__}", "return a torch.nn.Module")
    clean = {raw: name for name, raw in state.raw.items()}
    codebooks = {view.name: clean[view.keys["codebook"]] for view in views}
    anchor = next(iter(codebooks.values()), next(iter(state.entries)))
    mapped = align(model.state_dict().keys(), state, anchor)
    if not live and loaded is None:
        fitting = {ours: state.entries[theirs] for ours, theirs in mapped.items()}
        missing = load_state(model, fitting or state.entries).missing
        unexpected = (state.raw[name] for name in state.entries if name not in set(mapped.values()))
        loaded = Loaded(missing=missing, unexpected=tuple(unexpected))
    own = {theirs: ours for ours, theirs in mapped.items()}
    names = {layer: own[name] for layer, name in codebooks.items() if name in own}
    if codebooks and not names:
        raise UserError(
            f"the model has no {anchor!r}, which is the checkpoint's codebook",
            "build the model that the checkpoint was saved from",
        )
    missing = loaded.missing if loaded else ()
    levels = absent_levels(missing, set(names.values()))
    silence(model, levels, set(names.values()))
    as_built = [name for name in missing if not any(name in under for under in levels.values())]
    differences = {
        "levels of the model that the file lacks, left out with codes of zero": tuple(levels),
        "in the model but not in the file, left as built": as_built,
        UNEXPECTED: loaded.unexpected if loaded else (),
    }
    return ExaminedModel(
        model=model,
        task=guarded,
        views=tuple(view for view in views if view.name in names),
        raw_keys={unwrapped_name(model, ours): state.raw[theirs] for ours, theirs in mapped.items()},
        absent=tuple(view.name for view in views if view.name not in names),
        load_notes=(
            *told,
            *(f"{where}: {few_names(found)}" for where, found in differences.items() if found),
        ),
        lacking=tuple(untrained(model, as_built, guarded.model)),
        left_out=tuple(levels),
    )


def _state_of(checkpoint: Checkpoint, views: Sequence[QuantizerView]) -> StateDict:
    """Return the state dict that holds the VQ layers; without any, the largest."""
    wanted = {view.keys["codebook"] for view in views}
    states = [state for state in state_dicts(checkpoint.tensors) if wanted <= set(state.raw.values())]
    if not states and views:
        raise UserError("the VQ layers are not all in one state dict", "--layer picks one")
    if not states:
        raise UserError("the file holds no tensors of a model", "give the model's checkpoint")
    return max(states, key=lambda state: len(state.entries))


def _task(session: Session, state: StateDict) -> tuple[Task, Loaded | None, tuple[str, ...]]:
    """Return the task, the result of a load that building the model includes, and notes on both."""
    user_model, data, arrays, record = session.user_model, session.data, session.arrays, session.record
    most = session.settings.batches or BATCHES
    if user_model.task is not None:
        return users_task(user_model.task), None, ()
    if user_model.model is None:
        return _built_in(record.task, session.checkpoint.tree, arrays), None, ()
    is_loader = arrays is None and isinstance(data, torch.utils.data.DataLoader)
    if user_model.losses is None and not (arrays or is_loader):
        given = "no batch" if data is None else describe(data)
        raise UserError(f"{NEEDS}; given is {given}", "--data BATCH, or --task")
    path = None if session.path is None else Path(session.path)
    recorded = session.checkpoint.tree
    model, loaded, told = _model(path, state, user_model.model, user_model.model_args, recorded)
    if user_model.losses is not None:
        served = _several(data, most)
        return _ScriptTask(model, {"train": served, "val": served}, user_model.losses), loaded, told
    batches: Mapping[str, Sequence[Batch]]
    if arrays is None:
        served = [_named(item) for item in _several(data, most)]
        name = input_name(model, served[0] if served else {"x"})
        batches = {"train": served, "val": served}  # alike, which usage counts once
    else:
        name = input_name(model, arrays)
        require_values(arrays, name)
        batches = batches_of(arrays, record.batch_size, name)
    vq_loss = user_model.vq_loss or hf.VQ_LOSS.get(type(model).__name__)
    own = DefaultTask(model, batches, vq_loss=vq_loss, task_loss=user_model.task_loss, input_name=name)
    if arrays is not None and record.batch_size is None:
        own.assumed_batch_size = BATCH_SIZE
    return own, loaded, told


def users_task(named: object) -> Task:
    """Import a task that is named; call a class or a function that makes one."""
    task = load_object(named, "--task") if isinstance(named, str) else named
    what = f"--task {named}" if isinstance(named, str) else "the task"
    if isinstance(task, type) or (callable(task) and not (hasattr(task, "losses") or hasattr(task, "step"))):
        with blamed(what):
            task = task()
    steps = callable(getattr(task, "step", None))
    needed = ("model", "batches", "optimizer" if steps else "losses")
    lacking = [name for name in needed if not callable(getattr(task, name, None))]
    if lacking:
        without = ", ".join(f"{name}()" for name in lacking)
        hint = "a Task has model(), batches(split), losses(model, batch) and vq_weight"
        if steps:
            hint = "one with step(model, batch) has optimizer(model), which returns all that step() uses"
        raise UserError(f"{what}: a {type(task).__name__} without {without}", hint)
    weight = getattr(task, "vq_weight", None)
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool) and math.isfinite(weight)
    if weight is not None and not is_number:
        raise UserError(f"{what}: vq_weight is {weight!r}", "write a finite number, or None for unknown")
    return cast("Task", task)


def _built_in(name: str | None, tree: object, arrays: Arrays | None) -> Task:
    """Return the built-in task of that name; a name from a file never becomes an import."""
    from vqdoctor.reference import BUILTIN_TASKS

    if name is None:
        raise UserError(
            "the batch has x, but the checkpoint does not say which built-in task it belongs to",
            "name your model with --model PKG.MODULE:FACTORY or your task with --task FILE.py:NAME, or "
            "dump z_e or the indices of your VQ layer into the batch instead",
        )
    if name not in BUILTIN_TASKS:
        what = f"the checkpoint names the task {name!r}, which is not built in"
        raise UserError(what, f"the built-in tasks are {', '.join(BUILTIN_TASKS)}")
    config = tree.get("config") if isinstance(tree, dict) else None
    with blamed(f"the batch does not fit {name}"):
        return BUILTIN_TASKS[name](config if isinstance(config, dict) else {}, arrays or {})


def _model(
    path: Path | None, state: StateDict, model: object, arguments: Mapping[str, object], tree: object
) -> tuple[torch.nn.Module, Loaded | None, tuple[str, ...]]:
    """Return the user's model, the result of the load where building it includes one, and notes on it.

    A factory gets the arguments that the file's `tree` records, and the user's in their place.
    """
    if path is not None and isinstance(model, str) and model == "hf":
        return *hf.load(path, {state.raw[name]: tensor for name, tensor in state.entries.items()}), ()
    factory = load_object(model, "--model") if isinstance(model, str) else model
    if isinstance(factory, torch.nn.Module):
        # A model that a script holds is not loaded into; a copy of it is.
        return (factory if path is None else working_copy(factory, training=True)), None, ()
    what = f"--model {model}" if isinstance(model, str) else "the model"
    if not callable(factory):
        raise UserError(f"{what}: is a {type(factory).__name__}", "name a function or class that builds it")
    recorded = {} if path is None else recorded_arguments(tree, factory)
    recorded = {name: value for name, value in recorded.items() if name not in arguments}
    told = differences(recorded, factory)
    with blamed(what, "--model-arg K=V gives the factory its arguments"):
        built = factory(**{**recorded, **arguments})
    return built, None, (f"built with the file's {RECORDED}: {few_names(told)}",) if told else ()


def _several(batch: Batch, most: int) -> list[Batch]:
    """Return a loader's first batches, which then are the same at every look; else the one batch."""
    if not isinstance(batch, torch.utils.data.DataLoader):
        return [batch]
    with blamed("the loader"):
        return list(itertools.islice(batch, most))


def _named(item: object) -> dict[str, torch.Tensor]:
    """Return a loader's batch with its own names, or else with the names x and y."""
    if isinstance(item, Mapping):
        return {name: value for name, value in item.items() if isinstance(value, torch.Tensor)}
    parts = [item] if isinstance(item, torch.Tensor) else item
    if isinstance(parts, tuple | list) and parts and all(isinstance(p, torch.Tensor) for p in parts[:2]):
        return dict(zip(("x", "y"), parts, strict=False))
    raise UserError(f"a batch of the loader is {describe(item)}", "give losses=, or a task")


@dataclass(eq=False)
class _ScriptTask:
    """The model, the batches and the losses of a script; satisfies `Task`."""

    own: torch.nn.Module
    served: Mapping[str, Sequence[Batch]]
    losses: Callable[[torch.nn.Module, Batch], Losses]
    vq_weight: float | None = None
    serves_a_sample: bool = True

    def model(self) -> torch.nn.Module:
        return self.own

    def batches(self, split: Split) -> Sequence[Batch]:
        return self.served.get(split, ())
