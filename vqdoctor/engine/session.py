"""One checkpoint or live model, opened once: all that is done with it shares what was read and built."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from vqdoctor.checkpoint import Checkpoint, open_checkpoint
from vqdoctor.core.errors import MissingPackageError, UserError
from vqdoctor.core.evidence import TrainingRecord
from vqdoctor.core.experiments import MOST_STEPS
from vqdoctor.core.launcher import Launched
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine.batch import Arrays, load_batch, require_values
from vqdoctor.layouts import Found, QuantizerView, find_quantizers
from vqdoctor.probes.file import FileContext
from vqdoctor.saved.training import SavedTraining

if TYPE_CHECKING:  # these need torch
    import torch

    from vqdoctor.models.examined import ExaminedModel
    from vqdoctor.probes.model import ModelContext

Progress = Callable[[str], None]

MOST_LAYERS = 256
"""VQ layers of one file: the deepest residual quantizers have 64."""
TRAIN_BATCHES = 4
"""Training batches that the gradients are measured on, where the user does not say."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Session:
    """An opened checkpoint with the user's data, model and settings; layers and model come when asked for.

    Attributes:
        path: the checkpoint, as the user wrote it; None where a live model is examined.
        checkpoint: the opened file; of a live model, a temporary one.
        data: the data as the user gave it.
        arrays: its arrays by name; None without data, and where the data is not made of arrays.
        user_model: the user's model or task.
        settings: the user's settings.
        say: gets each step in a few words.
        notes: the data that was found without being named, one line each.
        launched: the processes that torch's launcher started, all of which open it.
    """

    path: str | os.PathLike[str] | None
    checkpoint: Checkpoint
    data: object
    arrays: Arrays | None
    user_model: UserModel
    settings: Settings
    say: Progress
    notes: tuple[str, ...] = ()
    launched: Launched = field(default_factory=Launched)

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        path: str | os.PathLike[str] | None,
        *,
        data: object = None,
        user_model: UserModel | None = None,
        settings: Settings | None = None,
        progress: Progress | None = None,
        training: bool = False,
        launched: Launched | None = None,
    ) -> Iterator[Self]:
        """Open a checkpoint once, for everything that follows.

        Args:
            path: the checkpoint file; None where `user_model.model` is a live model, to be examined as it is.
            data: a batch file with x (and y), or with z_e and/or indices dumped from any framework; from
                Python also the arrays themselves, by name or as x or (x, y), or a DataLoader.
            user_model: the user's model or task; without it x needs a task that the checkpoint names.
            settings: the user's settings.
            progress: gets each step in a few words.
            training: whether a model is needed; then the data of a built-in task may lie beside the
                checkpoint, unnamed.
            launched: the processes that torch's launcher started; None is this one alone.

        Raises:
            UserError: if a file cannot be read, or the arguments do not fit together.
        """
        user_model, say = user_model or UserModel(), progress or (lambda _: None)
        settings = settings or Settings()
        arrays = None if training else _read(path, data, user_model, settings)
        with contextlib.ExitStack() as stack:
            say("reading the checkpoint")
            file = path
            if file is None:
                from vqdoctor.models.save import saved

                file = stack.enter_context(saved(user_model.model, user_model.optimizer, user_model.steps))
            opened = cls(
                path=path,
                checkpoint=open_checkpoint(file),
                data=data,
                arrays=arrays,
                user_model=user_model,
                settings=settings,
                say=say,
                launched=launched or Launched(),
            )
            yield opened._with_data_to_train_on() if training else opened

    def with_data(self, data: object) -> Self:
        """Return a session of the same opened checkpoint with other data.

        Raises:
            UserError: if the data cannot be read, or does not fit the user's model.
        """
        arrays = _read(self.path, data, self.user_model, self.settings)
        return replace(self, data=data, arrays=arrays)

    def _with_data_to_train_on(self) -> Self:
        """Return the session with the named data, or with a built-in task's data beside the file.

        Raises:
            UserError: if there is none, or it cannot be read.
        """
        if self.data is not None or self.user_model.task is not None:
            return self.with_data(self.data)
        task = self.record.task
        if self.user_model.model is None and task is not None:
            from vqdoctor.reference import BUILTIN_DATA

            if task in BUILTIN_DATA:
                beside = self.checkpoint.path.parent / BUILTIN_DATA[task]
                if not beside.is_file():
                    raise UserError(f"there is no {beside}, the data of {task}", "--data BATCH")
                note = f"trained on {beside}, which lies beside the checkpoint"
                return replace(self.with_data(beside), notes=(note,))
        hint = "--task FILE.py:NAME, or --model and --data with x (and y)"
        raise UserError("retraining needs the model, its data and its losses", hint)

    @cached_property
    def sha256(self) -> str | None:
        """The file's checksum, for which every byte is read; None where the user did not ask for it."""
        return self.checkpoint.verify() if self.settings.verify and self.path is not None else None

    @property
    def runs_users_model(self) -> bool:
        """Whether the user's model is run; a live model alone, without anything to run it on, is not."""
        alone = self.path is None and self.user_model.task is None and self.data is None
        return self.user_model.runs and not alone

    @property
    def is_dump(self) -> bool:
        """Whether the data holds vectors or indices of the VQ layers, in place of the model's input."""
        return _is_dump(self.arrays)

    @cached_property
    def found(self) -> Found:
        """The VQ layers of the file; none where the named layer may appear when the model is run.

        Raises:
            UserError: if a layer or a key is named that the file does not have.
        """
        settings = self.settings
        try:
            found = find_quantizers(
                self.checkpoint.tensors,
                layer=settings.layer,
                codebook_key=settings.codebook_key,
                orientation=settings.orientation,
                skipped=self.checkpoint.skipped,
            )
        except UserError:
            if not self.runs_users_model or settings.layer is None or settings.codebook_key is not None:
                raise
            return Found(views=())
        if len(found.views) > MOST_LAYERS:
            what = f"{self.checkpoint.path}: {len(found.views):,} VQ layers, more than any model has"
            raise UserError(what, "name one of them: --layer NAME")
        return found

    @cached_property
    def record(self) -> TrainingRecord:
        """The file's record of its training; empty for a live model."""
        if self.path is None:
            return TrainingRecord(source="checkpoint", sample_size=0)
        return self.saved.record

    @cached_property
    def saved(self) -> SavedTraining:
        """The file's optimizers, its record, and the notes of earlier fixes."""
        return SavedTraining(checkpoint=self.checkpoint)

    def file_context(self, views: tuple[QuantizerView, ...] | None = None) -> FileContext:
        """Return the context of the file's probes, for these layers; None is the layers of the file."""
        views = self.found.views if views is None else views
        return FileContext(
            checkpoint=self.checkpoint,
            views=views,
            decays=self._decays(views) if self.runs_users_model else {},
            seed=self.settings.seed,
            histogram=self.settings.histogram,
            verify=self.settings.verify,
        )

    def _decays(self, views: tuple[QuantizerView, ...]) -> dict[str, float]:
        """Return the EMA decays that the modules of the user's model keep, beside each layer's codes."""
        from vqdoctor.capture.decay import decay_beside
        from vqdoctor.models.untouched import unwrapped

        model = unwrapped(self.model.model)
        names = {raw: name for name, raw in self.model.raw_keys.items()}
        keys = {view.name: view.keys.get("counts", view.keys.get("codebook", "")) for view in views}
        kept = {name: decay_beside(model, names.get(key, "")) for name, key in keys.items()}
        return {name: decay for name, decay in kept.items() if decay is not None}

    @cached_property
    def model(self) -> ExaminedModel:
        """The model with the checkpoint in it, and its task, built once.

        Raises:
            UserError: if something is missing, does not fit, or the user's code fails.
        """
        from vqdoctor.engine.build_model import build_model
        from vqdoctor.models.untouched import same_randomness

        _ = self.device
        self.say("building the model")
        with same_randomness(self.settings.seed):
            return build_model(self)

    def leave_out(self, names: Container[str]) -> None:
        """Take layers out of those of the file and of the model, as the model shows that they are none."""
        found, model = self.found, self.model
        vars(self).update(  # where `cached_property` keeps what it has found
            found=replace(found, views=tuple(view for view in found.views if view.name not in names)),
            model=replace(model, views=tuple(view for view in model.views if view.name not in names)),
        )

    @cached_property
    def device(self) -> torch.device:
        """Where copies of the model run.

        Raises:
            UserError: if there is no such device.
        """
        from vqdoctor.models.device import resolve

        return resolve(self.settings.device)

    def model_context(self, *, training: bool = False) -> ModelContext:
        """Return the context of the model's probes and of a training.

        Args:
            training: whether all batches of every split are served, unless the user sets their number.
        """
        from vqdoctor.probes.model import ModelContext

        model, settings = self.model, self.settings
        saved = self.saved.optimizers if self.path is not None else ()
        rates = (optimizer.learning_rate for optimizer in saved if optimizer.learning_rate is not None)
        return ModelContext(
            model=model.model,
            task=model.task.whole() if training and not settings.batches else model.task,
            views=model.views,
            names={raw: name for name, raw in model.raw_keys.items()},
            record=self.record if self.record.sample_size else None,
            arrays=self.arrays or {},
            device=self.device,
            seed=settings.seed,
            histogram=settings.histogram,
            train_batches=settings.batches or TRAIN_BATCHES,
            launched=self.launched,
            probe_steps=settings.training_steps,
            experiment_steps=min(settings.training_steps, MOST_STEPS),
            last_rate=next(iter(rates), None),
            progress=self.say,
        )


def _read(
    path: str | os.PathLike[str] | None, data: object, user_model: UserModel, settings: Settings
) -> Arrays | None:
    """Return the arrays of the data by name; None without data, and where it is not made of arrays.

    Raises:
        UserError: if the data cannot be read, or an argument would be ignored.
    """
    mask = settings.mask
    arrays = None if user_model.losses is not None else _arrays(data)
    require_values(arrays or {})
    runs = user_model.runs or (arrays is not None and "x" in arrays and not _is_dump(arrays))
    if path is None and user_model.model is None:
        raise UserError("there is nothing to examine", "give a checkpoint or a model")
    if mask is not None and arrays is not None and mask not in arrays:
        raise UserError(f"--mask {mask}: the batch holds {', '.join(arrays) or 'no arrays'}")
    alone = path is None and user_model.task is None and data is None
    if settings.decide and (alone or not runs):
        hint = "add --task FILE.py:NAME, or --model and --data with x (and y)"
        raise UserError("--decide trains copies of the model, and no model is run", hint)
    if mask is not None and arrays is None and not runs:
        raise UserError("--mask needs data", "add --data, or --task")
    if path is not None and user_model.optimizer is not None:
        raise UserError("an optimizer belongs to a live model", "a checkpoint holds its own")
    if user_model.losses is not None and data is None:
        raise UserError("losses= needs a batch", "examine(model, batch, losses=…)")
    if user_model.trained_vq_weight is not None and not runs:
        hint = "add --task, or --model and --data"
        raise UserError("--trained-vq-weight has no effect, as no model is run", hint)
    if user_model.task is not None and arrays is not None:
        raise UserError("--task and --data: a task brings its own data", "leave one of them out")
    if runs and importlib.util.find_spec("torch") is None:
        raise MissingPackageError("torch", "running a model", "torch")
    return arrays


def _arrays(data: object) -> Arrays | None:
    if isinstance(data, str | os.PathLike):
        return load_batch(Path(data))
    if isinstance(data, Mapping):
        named = {str(name): _array(value) for name, value in data.items()}
    else:
        parts = data if isinstance(data, tuple | list) else (data,)
        named = dict(zip(("x", "y"), map(_array, parts), strict=False))
    arrays = {name: array for name, array in named.items() if array is not None}
    return arrays if arrays and len(arrays) == len(named) else None


def _array(value: Any) -> NDArray[Any] | None:
    """Return an array or a tensor as an array; None for anything else. A tensor is found without torch."""
    if isinstance(value, np.ndarray):
        return value
    is_tensor = callable(getattr(value, "detach", None)) and hasattr(value, "numpy")
    return np.asarray(value.detach().cpu().numpy()) if is_tensor else None


def _is_dump(arrays: Arrays | None) -> bool:
    return any(name.partition("/")[0] in ("z_e", "indices") for name in arrays or ())
