"""One checkpoint or live model, opened once: all that is done with it shares what was read and built."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from vqdoctor.checkpoint import Checkpoint, open_checkpoint
from vqdoctor.core.errors import MissingPackageError, UserError
from vqdoctor.core.evidence import TrainingRecord
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine.batch import Arrays, load_batch
from vqdoctor.layouts import Found, QuantizerView, find_quantizers
from vqdoctor.probes.file import FileContext
from vqdoctor.saved.training import SavedTraining

if TYPE_CHECKING:  # these need torch
    import torch

    from vqdoctor.models.examined import ExaminedModel
    from vqdoctor.probes.model import ModelContext

Progress = Callable[[str], None]

TRAIN_BATCHES = 4
"""Training batches that the gradients are measured on, where the user does not say."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Session:
    """An opened checkpoint with the user's data, model and settings; layers and model come when asked for.

    Attributes:
        path: the checkpoint, as the user wrote it; None where a live model is examined.
        checkpoint: the opened file; of a live model, a temporary one.
        data: the data as the user gave it.
        arrays: its arrays by name; None where there is no data, or the data is no arrays.
        user_model: the user's model or task.
        settings: the user's settings.
        say: told in a few words what is being done.
        notes: where data was found that was not named, one line each.
    """

    path: str | os.PathLike[str] | None
    checkpoint: Checkpoint
    data: Any
    arrays: Arrays | None
    user_model: UserModel
    settings: Settings
    say: Progress
    notes: tuple[str, ...] = ()

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        path: str | os.PathLike[str] | None,
        *,
        data: Any = None,
        user_model: UserModel | None = None,
        settings: Settings | None = None,
        progress: Progress | None = None,
        training: bool = False,
    ) -> Iterator[Self]:
        """Open a checkpoint once, for all that is to be done with it.

        Args:
            path: the checkpoint file; None where `user_model.model` is a live model, to be examined as it is.
            data: a batch file with x (and y), or with z_e and/or indices dumped from any framework; from
                Python also the arrays themselves, by name or as x or (x, y), or a DataLoader.
            user_model: the user's model or task; without it x needs a task that the checkpoint names.
            settings: the user's settings.
            progress: told in a few words what is being done.
            training: whether a model is needed, so that the data of a built-in task is looked for beside the
                checkpoint where none is named.

        Raises:
            UserError: if a file cannot be read, or what is given does not fit together.
        """
        user_model, say = user_model or UserModel(), progress or (lambda _: None)
        arrays = None
        if not training:
            arrays = _read(path, data, user_model)
        with contextlib.ExitStack() as stack:
            say("reading the checkpoint")
            file = path
            if file is None:
                from vqdoctor.models.save import saved

                file = stack.enter_context(saved(user_model.model, user_model.optimizer))
            checkpoint = open_checkpoint(file)
            notes: tuple[str, ...] = ()
            if training:
                data, notes = _data_to_train_on(checkpoint, data, user_model)
                arrays = _read(path, data, user_model)
            yield cls(
                path=path,
                checkpoint=checkpoint,
                data=data,
                arrays=arrays,
                user_model=user_model,
                settings=settings or Settings(),
                say=say,
                notes=notes,
            )

    def with_data(self, data: Any) -> Self:
        """Return a session of the same opened checkpoint with other data.

        Raises:
            UserError: if the data cannot be read, or does not fit the user's model.
        """
        return replace(self, data=data, arrays=_read(self.path, data, self.user_model))

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
        """Whether the data holds what went through the VQ layers, and not the model's input."""
        return _is_dump(self.arrays)

    @cached_property
    def found(self) -> Found:
        """The VQ layers of the file; none where the one that is named may show when the model is run.

        Raises:
            UserError: if a layer or a key is named that the file does not have.
        """
        settings = self.settings
        try:
            return find_quantizers(
                self.checkpoint.tensors,
                layer=settings.layer,
                codebook_key=settings.codebook_key,
                orientation=settings.orientation,
            )
        except UserError:
            if not self.runs_users_model or settings.layer is None or settings.codebook_key is not None:
                raise
            return Found(views=())

    @cached_property
    def record(self) -> TrainingRecord:
        """What the file records of its training; a live model records nothing."""
        if self.path is None:
            return TrainingRecord(source="checkpoint", sample_size=0)
        return self.saved.record

    @cached_property
    def saved(self) -> SavedTraining:
        """What the file remembers of its training."""
        return SavedTraining(checkpoint=self.checkpoint)

    def file_context(
        self, views: tuple[QuantizerView, ...] | None = None, *, histogram: bool = False
    ) -> FileContext:
        """Return what the file's probes are given.

        Args:
            views: the layers to look at; None is those of the file.
            histogram: whether usage carries every code's count, whatever the settings say.
        """
        return FileContext(
            checkpoint=self.checkpoint,
            views=self.found.views if views is None else views,
            seed=self.settings.seed,
            histogram=histogram or self.settings.histogram,
            verify=self.settings.verify,
        )

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

    @cached_property
    def device(self) -> torch.device:
        """Where copies of the model run.

        Raises:
            UserError: if there is no such device.
        """
        from vqdoctor.models.device import resolve

        return resolve(self.settings.device)

    def model_context(self, *, training: bool = False, histogram: bool = False) -> ModelContext:
        """Return what the model's probes and the trainings are given.

        Args:
            training: whether all batches of every split are served, unless the user says how many.
            histogram: whether usage carries every code's count, whatever the settings say.
        """
        from vqdoctor.probes.model import ModelContext

        model, settings = self.model, self.settings
        return ModelContext(
            model=model.model,
            task=model.task.whole() if training and not settings.batches else model.task,
            views=model.views,
            names={raw: name for name, raw in model.raw_keys.items()},
            record=self.record if self.record.sample_size else None,
            arrays=self.arrays or {},
            device=self.device,
            seed=settings.seed,
            histogram=histogram or settings.histogram,
            train_batches=settings.batches or TRAIN_BATCHES,
            probe_steps=settings.probe_steps,
            progress=self.say,
        )


def _read(path: str | os.PathLike[str] | None, data: Any, user_model: UserModel) -> Arrays | None:
    """Return the arrays of the data by name; None where there is none, or the data is no arrays.

    Raises:
        UserError: if the data cannot be read, or something is given that would be ignored.
    """
    arrays = None if user_model.losses is not None else _arrays(data)
    runs = user_model.runs or (arrays is not None and "x" in arrays and not _is_dump(arrays))
    if path is None and user_model.model is None:
        raise UserError("there is nothing to examine", "give a checkpoint or a model")
    if path is not None and user_model.optimizer is not None:
        raise UserError("an optimizer belongs to a live model", "a checkpoint holds its own")
    if user_model.losses is not None and data is None:
        raise UserError("losses= needs a batch", "examine(model, batch, losses=…)")
    if user_model.trained_vq_weight is not None and not runs:
        hint = "add --task, or --model and --data"
        raise UserError("--trained-vq-weight says nothing where no model is run", hint)
    if user_model.task is not None and arrays is not None:
        raise UserError("--task and --data: a task brings its own data", "leave one of them out")
    if runs and importlib.util.find_spec("torch") is None:
        raise MissingPackageError("torch", "running a model", "torch")
    return arrays


def _arrays(data: Any) -> Arrays | None:
    if isinstance(data, str | os.PathLike):
        return load_batch(Path(data))
    if isinstance(data, Mapping):
        named = {str(name): _array(value) for name, value in data.items()}
    else:
        parts = data if isinstance(data, tuple | list) else (data,)
        named = dict(zip(("x", "y"), map(_array, parts), strict=False))
    arrays = {name: array for name, array in named.items() if array is not None}
    return arrays if arrays and len(arrays) == len(named) else None


def _array(value: Any) -> Any:
    """Return an array or a tensor (which is not asked by its type: torch may not be there) as an array."""
    if isinstance(value, np.ndarray):
        return value
    detach = getattr(value, "detach", None)
    return detach().cpu().numpy() if callable(detach) and hasattr(value, "numpy") else None


def _is_dump(arrays: Arrays | None) -> bool:
    return any(name.partition("/")[0] in ("z_e", "indices") for name in arrays or ())


def _data_to_train_on(
    checkpoint: Checkpoint, data: Any, user_model: UserModel
) -> tuple[Any, tuple[str, ...]]:
    """Return the data to train on, and a note where it was not named but found.

    Raises:
        UserError: if there is none.
    """
    if data is not None or user_model.task is not None:
        return data, ()
    task = SavedTraining(checkpoint=checkpoint).record.task
    if user_model.model is None and task is not None:
        from vqdoctor.reference import BUILTIN_DATA

        if task in BUILTIN_DATA:
            beside = checkpoint.path.parent / BUILTIN_DATA[task]
            if beside.is_file():
                return beside, (f"trained on {beside}, which lies beside the checkpoint",)
            raise UserError(f"there is no {beside}, the data of {task}", "--data BATCH")
    raise UserError(
        "retraining needs the model, its data and its losses",
        "--task FILE.py:NAME, or --model and --data with x (and y)",
    )
