"""The subject of an ablation: a checkpoint's model, a task's, or the built-in one with its faults."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from vqdoctor.capture.layer import CapturedLayer, watching
from vqdoctor.checkpoint import open_checkpoint
from vqdoctor.core.errors import UserError
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine.batch import Arrays, load_batch
from vqdoctor.engine.build_model import users_task
from vqdoctor.engine.session import Progress, Session
from vqdoctor.models.guarded_task import GuardedTask
from vqdoctor.models.task import Task
from vqdoctor.models.untouched import same_randomness
from vqdoctor.models.user_code import code_beside
from vqdoctor.reference.chain.task import CHAIN, SEQUENCES
from vqdoctor.reference.recipes import FIRST, PLAIN, Recipe
from vqdoctor.reference.task import DIGITS, MOTION, DataSet, ReferenceTask
from vqdoctor.training.finite_scalar import replace_layers

AS_IT_IS, FSQ = "as it is", "FSQ"
BUILT_IN: Mapping[str, Recipe] = {
    AS_IT_IS: replace(PLAIN, straight_through=False, vq_weight=1.0),
    "layer A": replace(FIRST, quantizer="unnormalised"),
    "layer B": replace(FIRST, quantizer="sphere"),
}
"""The built-in model with its faults. As it is it has no straight-through estimator, a codebook from N(0, 1)
and the plain sum of the losses; layers A and B have an EMA that loses its total, and codes on a sphere that
vectors do not lie on."""
STAGES: Mapping[str, tuple[str, ...]] = {
    "no stage": (), "HDP": ("HDP",), "HSMM": ("HSMM",), AS_IT_IS: ("HDP", "HSMM"),
}  # fmt: skip
"""The chain's models by name, each with the stages behind its VQ layer."""
DATA: Mapping[str, DataSet] = {data.name: data for data in (DIGITS, MOTION)}
CHAIN_DATA = "--data motion, or leave it out"
CHANNELS: Mapping[int, DataSet] = {1: DIGITS, 3: MOTION}
"""Channels of x to the built-in data set that has them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """The subject of a study. It can be sent to another process, which opens it anew.

    Attributes:
        path: the checkpoint; None without one.
        user_model: the user's model or task.
        settings: the user's settings.
    """

    path: Path | None
    user_model: UserModel
    settings: Settings

    def __post_init__(self) -> None:
        """Refuse a model that comes without a checkpoint and without a task.

        Raises:
            UserError: if it does.
        """
        if self.path is None and self.user_model.model is not None:
            raise UserError("--model needs a checkpoint", "vqdoctor ablate CKPT --model …, or --task alone")
        if self.settings.codes is not None and not self.built_in:
            raise UserError("--codes is for the built-in model", "a model of yours states its own")
        if self.settings.stages and not self.built_in:
            what = "--stages switches the stages of the built-in chain"
            raise UserError(what, "leave the checkpoint and --task out")
        if self.settings.stages and str(self.settings.batch) == DIGITS.name:
            raise UserError("--data digits: the chain takes sequences, and no images", CHAIN_DATA)

    @property
    def built_in(self) -> bool:
        """Whether it is the built-in model."""
        return self.path is None and self.user_model.task is None

    @property
    def models(self) -> Mapping[str, float | None]:
        """The models that are trained as they are, each with its VQ loss's weight where that is its own."""
        if not self.built_in:
            return {AS_IT_IS: None}
        return {name: recipe.vq_weight for name, recipe in BUILT_IN.items()}

    @property
    def told(self) -> str:
        """The model and its data, in words."""
        if self.built_in:
            recipe, data = CHAIN if self.settings.stages else BUILT_IN[AS_IT_IS], self._data_set
            codes = self.settings.codes or recipe.num_codes
            if self.settings.stages:
                return f"the built-in chain Conv2d, VQ, HDP, HSMM, {codes} codes, on sequences of {data.name}"
            return f"the built-in Conv2d-VQ model without an estimator, {codes} codes, on {data.name}"
        if self.path is None:
            return f"the model of the task {self.user_model.task}"
        of = self.user_model.task or self.settings.batch
        return f"the model of {self.path.name}" + (f", with {of}" if of else "")

    @cached_property
    def fingerprint(self) -> str:
        """The identity of the files: the checkpoint, the data, and the user's code once it is imported."""
        found: dict[str, object] = {"model": {}, "codes": self.settings.codes}
        if self.path is not None:
            found["checkpoint"] = open_checkpoint(self.path).fingerprint(())
        if self._data_file is not None:
            with self._data_file.open("rb") as data:
                found["data"] = hashlib.file_digest(data, "sha256").hexdigest()
        named = self.user_model.task or self.user_model.model
        code = {} if named is None else code_beside(str(named))
        found["code"] = {name: hashlib.sha256(text).hexdigest() for name, text in code.items()}
        found["named"] = str(named)
        found["arguments"] = {name: repr(value) for name, value in self.user_model.model_args.items()}
        recipes = {AS_IT_IS: CHAIN} if self.settings.stages else BUILT_IN
        found["built in"] = {name: asdict(recipe) for name, recipe in recipes.items()}
        return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()

    @contextlib.contextmanager
    def open(self, model: str = AS_IT_IS, say: Progress | None = None) -> Iterator[Session]:
        """Open one of its models.

        Args:
            model: "as it is", "FSQ", or one of `models`.
            say: told each step.

        Raises:
            UserError: if something is missing, does not fit, or the user's code fails.
        """
        with contextlib.ExitStack() as stack:
            if model == FSQ:
                base = stack.enter_context(self.open(say=say))
                task: Task = _WithFSQ(base)
            elif self.path is not None:
                yield stack.enter_context(self._session(self.path, self.user_model, say))
                return
            else:
                task = self._reference(model) if self.built_in else users_task(self.user_model.task)
            with same_randomness(self.settings.seed):
                built = GuardedTask(task, None, None, self.settings.mask).model()
            live = replace(
                self.user_model, task=task, model=built, model_args={}, vq_loss=None, task_loss=None
            )
            yield stack.enter_context(self._session(None, live, say))

    def _session(
        self, path: Path | None, user_model: UserModel, say: Progress | None
    ) -> contextlib.AbstractContextManager[Session]:
        data = None if path is None else self.settings.batch
        return Session.open(
            path, data=data, user_model=user_model, settings=self.settings, progress=say, training=True
        )

    def _reference(self, model: str) -> ReferenceTask:
        recipe = BUILT_IN[AS_IT_IS if self.settings.stages else model]
        if self.settings.stages:
            stages = STAGES[model]
            recipe = replace(CHAIN, use_hdp="HDP" in stages, use_hsmm="HSMM" in stages)
        recipe = replace(recipe, num_codes=self.settings.codes or recipe.num_codes)
        try:
            return self._data_set.make(recipe.config(0), self._arrays)
        except (KeyError, ValueError) as error:
            what = f"{self._data_file}: not the data of the built-in model ({error})"
            hint = CHAIN_DATA if self.settings.stages else "--data digits or --data motion"
            raise UserError(what, hint) from error

    @property
    def _data_set(self) -> DataSet:
        named = self.settings.batch
        if self.settings.stages:
            return SEQUENCES
        if named is None or str(named) in DATA:
            return DATA[DIGITS.name if named is None else str(named)]
        x = self._arrays.get("x")
        found = None if x is None or x.ndim != 4 else CHANNELS.get(x.shape[1])
        if found is None:
            hint = "--data digits or --data motion, or --task for a model of your own"
            raise UserError(f"{named}: not the data of the built-in model", hint)
        return found

    @cached_property
    def _data_file(self) -> Path | None:
        """The data file; None where the built-in digits come from scikit-learn, or there is none."""
        named = self.settings.batch
        if not self.built_in or (named is not None and str(named) not in DATA):
            return named
        data = self._data_set
        places = (Path(data.file), Path("sample_checkpoints") / data.file)
        return next((place for place in places if place.is_file()), None)

    @cached_property
    def _arrays(self) -> Arrays:
        if self._data_file is not None:
            return load_batch(self._data_file)
        data = self._data_set
        try:
            from vqdoctor.reference.make_digits import digits

            if data is DIGITS:
                return digits()
        except ImportError:
            pass
        what = f"there is no {data.file} here, the data of the built-in model"
        raise UserError(what, f"--data PATH/{data.file}; it lies beside the sample checkpoints")


class _WithFSQ:
    """A task whose model has finite scalar quantizers in the place of its VQ layers."""

    def __init__(self, session: Session) -> None:
        context = session.model_context(training=True)
        self._task: Any = context.task
        model = context.copy(training=False)
        layers = context.on(model)
        batch = next(iter(self._task.batches("train")))
        with torch.no_grad(), watching(layers, keep_graph=True) as watched:
            self._task.losses(model, batch)
        calls = [next(iter(layer.calls(watched)), None) for layer in layers]
        self._places = [(layer, call) for layer, call in zip(layers, calls, strict=True) if call is not None]
        other = [layer.name for layer, call in self._places if not _fits(layer, call.module)]
        if other or len(self._places) < len(layers) or len({layer.path for layer in layers}) < len(layers):
            raise UserError("FSQ cannot take the place of this layer", "it is not called as one module")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # a copy has no task yet while it is made
            raise AttributeError(name)
        return getattr(self._task, name)

    def model(self) -> torch.nn.Module:
        """Return the task's model with the layers replaced."""
        return replace_layers(self._task.model(), self._places)


def _fits(layer: CapturedLayer, called: torch.nn.Module) -> bool:
    return called is layer.module and not layer.inline and not layer.shared
