"""Retraining a sick model: the plan applied in its order, trained to its goals, written, and measured again.

This module needs torch; it is imported where a model is retrained.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

import vqdoctor
from vqdoctor.capture.codebook import LiveCodebook
from vqdoctor.checkpoint import Checkpoint, check_output, open_checkpoint, write_checkpoint
from vqdoctor.core.errors import UserError
from vqdoctor.core.evidence import TrainingRecord
from vqdoctor.core.report import Repair, Report
from vqdoctor.core.retraining import TOLERANCE, Arm, Epoch, Figures, Goals, Retraining, SourceChange
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.engine.batch import load_batch
from vqdoctor.engine.examine import examine
from vqdoctor.engine.patient import Patient, admit, same_randomness
from vqdoctor.engine.prescribe import Prescribed, Prescription, prescribe
from vqdoctor.engine.trial import Tried, hold_trial
from vqdoctor.layouts import find_quantizers
from vqdoctor.models.device import resolve
from vqdoctor.probes.file import RETRAINED, FileContext
from vqdoctor.probes.model import ModelContext
from vqdoctor.reference import BUILTIN_DATA
from vqdoctor.remedies import all_remedies
from vqdoctor.training.evaluate import evaluate
from vqdoctor.training.layer import Layer, bypassable
from vqdoctor.training.moments import new_moments
from vqdoctor.training.resume import load_state, save_state, state_path
from vqdoctor.training.splits import Splits
from vqdoctor.training.start import restart
from vqdoctor.training.trainer import Trainer

KIND = "vqdoctor-retraining"
EPOCHS = 50
"""Epochs at most, where neither the user nor a remedy says how many."""
TRAINING_ONLY = ("lower-vq-weight", "raise-vq-weight", "faster-ema", "data-init")
"""Remedies that mend how a model is trained, and leave no trace in its source."""


class Watcher(Protocol):
    """Who follows a retraining."""

    def say(self, doing: str) -> None:
        """Hear what is being done, in a few words."""

    def epoch(self, phase: str, row: Epoch, epochs: int) -> None:
        """Hear of a finished epoch of a phase ("without VQ", "retraining", …) of that many."""


def retrain(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    data: Any = None,
    user_model: UserModel | None = None,
    settings: Settings | None = None,
    watcher: Watcher | None = None,
) -> Report:
    """Retrain a checkpoint's model with the remedies of its report, write it, and return the output's report.

    The state of an unfinished run is kept beside the output after every epoch; Ctrl-C and SIGTERM end the
    run with what there is after the last of them.

    Args:
        path: the checkpoint; it is only read.
        output: the file to write; its container, names and types are the input's.
        data: a batch file with x (and y).
        user_model: the user's model or task; without it the checkpoint must name a built-in task.
        settings: what the user set about the retraining, and about the examinations before and after.
        watcher: told what is being done.

    Raises:
        UserError: if a file cannot be read or written, the user's code fails, nothing can be retrained, or
            the loss does not stay finite.
    """
    settings, user_model = settings or Settings(), user_model or UserModel()
    started = time.monotonic()
    say = watcher.say if watcher is not None else lambda _: None
    checkpoint = open_checkpoint(path)
    output = Path(output)
    check_output(checkpoint, output, overwrite=settings.overwrite)
    data, found = _data(checkpoint, data, user_model)
    before = examine(path, data=data, user_model=user_model, settings=settings, progress=say)
    with same_randomness(settings.seed), _sigterm_as_interrupt():
        clinic = Clinic.of(Path(path), checkpoint, data, user_model, settings, say)
        prescription = prescription_of(before, clinic, settings)
        run = _Run(
            clinic=clinic,
            output=output,
            settings=settings,
            watcher=watcher,
            plan=prescription.plan,
        )
        run.take_up()
        result = run.all(prescription)
    say(f"writing {output}")
    _write(clinic, result, output, settings.overwrite)
    after = examine(output, data=data, user_model=user_model, settings=settings, progress=say)
    if not result.retraining.interrupted:
        state_path(output).unlink(missing_ok=True)
    return replace(
        after,
        retraining=replace(
            result.retraining,
            source=tuple(_left_in_source(result, after)),
            seconds=time.monotonic() - started,
        ),
        repairs=tuple(_repairs(result)),
        notes=(*after.notes, *found, *result.notes),
    )


def _data(checkpoint: Checkpoint, data: Any, user_model: UserModel) -> tuple[Any, tuple[str, ...]]:
    """Return the data to train on, and a note where it was not named but found.

    Raises:
        UserError: if there is none.
    """
    if data is not None or user_model.task is not None:
        return data, ()
    task = FileContext(checkpoint=checkpoint, views=()).record.task
    if user_model.model is None and task is not None and task in BUILTIN_DATA:
        beside = checkpoint.path.parent / BUILTIN_DATA[task]
        if beside.is_file():
            return beside, (f"trained on {beside}, which lies beside the checkpoint",)
        raise UserError(f"there is no {beside}, the data of {task}", "--data BATCH")
    raise UserError(
        "retraining needs the model, its data and its losses",
        "--task FILE.py:NAME, or --model and --data with x (and y)",
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Clinic:
    """A sick checkpoint, its model and its task, from which any number of fresh copies can be trained."""

    checkpoint: Checkpoint
    patient: Patient
    context: ModelContext
    device: torch.device
    splits: Splits
    say: Callable[[str], None]

    @classmethod
    def of(
        cls,
        path: Path,
        checkpoint: Checkpoint,
        data: Any,
        user_model: UserModel,
        settings: Settings,
        say: Callable[[str], None],
    ) -> Clinic:
        """Build the model and locate its layers."""
        views = find_quantizers(
            checkpoint.tensors,
            layer=settings.layer,
            codebook_key=settings.codebook_key,
            orientation=settings.orientation,
        ).views
        record: TrainingRecord = FileContext(checkpoint=checkpoint, views=views).record
        arrays = load_batch(Path(data)) if isinstance(data, str | os.PathLike) else None
        patient = admit(
            path=path,
            checkpoint=checkpoint,
            views=views,
            record=record,
            arrays=arrays,
            data=data,
            user_model=user_model,
            batches=settings.batches,
        )
        device = resolve(settings.device)
        task = patient.task if settings.batches else patient.task.whole()
        context = ModelContext(
            model=patient.model,
            task=task,
            views=patient.views,
            codebook_names=patient.codebook_names,
            record=record,
            device=device,
            seed=settings.seed,
        )
        return cls(
            checkpoint=checkpoint,
            patient=patient,
            context=context,
            device=device,
            splits=Splits(task, device),
            say=say,
        )

    def trainer(self, plan: TrainingPlan, *, goals: Goals | None = None, without_vq: bool = False) -> Trainer:
        """Return the training of a fresh copy of the model."""
        model = self.context.copy(training=True)
        layers = self.layers(model)
        start = "scratch" if without_vq else plan.start
        restart(model, self.context.task, next(iter(self.splits.in_order())), layers, start, plan.seed)
        return Trainer(
            model=model,
            task=self.context.task,
            splits=self.splits,
            layers=layers,
            plan=plan,
            goals=goals,
            without_vq=without_vq,
            say=self.say,
        )

    def layers(self, model: torch.nn.Module) -> tuple[Layer, ...]:
        """Return the VQ layers of a copy of the model.

        Raises:
            UserError: if none of them shows its z_e and z_q.
        """
        located = {name: place for name, place in self.context.located.items() if place.maps}
        if not located:
            raise UserError(
                "no VQ layer can be watched in the model", "retraining needs a module from z_e to z_q"
            )
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        names = {raw: name for name, raw in self.patient.raw_keys.items()}
        return tuple(
            Layer(
                name=view.name,
                module=model.get_submodule(located[view.name].path),
                lookup=_module(model, located[view.name].lookup),
                codebook=LiveCodebook(
                    view=view,
                    tensors={
                        role: tensors[names[key]]
                        for role, key in view.keys.items()
                        if names.get(key) in tensors
                    },
                ),
                reader=self.context.readers[view.name],
            )
            for view in self.context.views
            if view.name in located
        )

    @cached_property
    def before(self) -> Figures | None:
        """The figures of the checkpoint as it is, on the val split."""
        model = self.context.copy(training=False)
        return evaluate(model, self.context.task, self.splits.val(), self.layers(model))


def _module(model: torch.nn.Module, path: str | None) -> torch.nn.Module | None:
    return None if path is None else model.get_submodule(path)


def prescription_of(before: Report, clinic: Clinic, settings: Settings) -> Prescription:
    """Return the training plan for what an examination found in a clinic's patient, as the user wants it."""
    layers = tuple(clinic.context.layers)
    trained_with = clinic.context.vq_weight
    plain = TrainingPlan(
        epochs=EPOCHS if settings.epochs is None else settings.epochs,
        seed=settings.seed,
        vq_weight=1.0 if trained_with is None else trained_with,
    )
    options = PlanOptions(
        layers=layers,
        vq_weight=0.1 if settings.vq_weight is None else settings.vq_weight,
        balanced=settings.balanced,
        warm_up_epochs=settings.warm_up_epochs,
        epochs=settings.epochs,
    )
    return prescribe(
        before,
        all_remedies(),
        plain,
        options,
        only=settings.only,
        skip=settings.skip,
        weight_is_wished=settings.vq_weight is not None or settings.balanced,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Result:
    """What a run came to."""

    trainer: Trainer
    retraining: Retraining
    prescription: Prescription
    tried: Tried | None = None
    notes: tuple[str, ...] = ()


@dataclass(kw_only=True, eq=False)
class _Run:
    """One run: without VQ, the trial, the retraining; each is taken up where it was left."""

    clinic: Clinic
    output: Path
    settings: Settings
    watcher: Watcher | None
    plan: TrainingPlan
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def _identity(self) -> dict[str, Any]:
        goals = dataclasses.asdict(self.settings.goals)
        return {
            "input": self.clinic.checkpoint.fingerprint(()),
            "plan": self.plan.to_dict(),
            "goals": goals,
            "trial": self.settings.trial,
        }

    def take_up(self) -> None:
        """Take up the unfinished run beside the output where that is asked for.

        Raises:
            UserError: if there is one and it is not asked for, or it is another run's.
        """
        path = state_path(self.output)
        self.state = {"kind": KIND, "identity": self._identity}
        if not path.exists():
            return
        if not self.settings.resume:
            raise UserError(f"{path} holds an unfinished run", "add --resume to go on, or delete it")
        found = load_state(path)
        if found.get("identity") != self._identity:
            raise UserError(
                f"{path} is of a run with other settings or another checkpoint",
                "give the same options, or delete it",
            )
        self.state = found

    def all(self, prescription: Prescription) -> _Result:
        """Run it all."""
        baseline, stop = self._without_vq()
        goals = self.settings.goals
        by_stop = replace(goals, min_accuracy=_wanted_accuracy(goals, stop, TOLERANCE / 2))
        by_val = replace(goals, min_accuracy=_wanted_accuracy(goals, baseline, TOLERANCE))
        tried = self._trial(prescription, by_stop)
        plan = prescription.plan if tried is None else tried.plan
        early = by_stop if self.clinic.splits.has_stop else None
        trainer = self.clinic.trainer(plan, goals=early)
        interrupted = self._train(trainer, "retraining")
        before, after = self.clinic.before, trainer.figures()
        return _Result(
            trainer=trainer,
            prescription=prescription,
            tried=tried,
            notes=tuple(trainer.notes),
            retraining=Retraining(
                plan=plan,
                epochs=tuple(trainer.rows),
                before=before,
                after=after,
                without_vq=baseline,
                goals=() if after is None else by_val.compare(after),
                trial=() if tried is None else tried.arms,
                interrupted=interrupted,
            ),
        )

    def _without_vq(self) -> tuple[Figures | None, Figures | None]:
        """Return what the same model does without VQ, trained as long, on the val and the stop split."""
        if "baseline" not in self.state:
            found: tuple[Figures | None, Figures | None] = (None, None)
            if self.settings.goals.min_accuracy is None and self._can_be_compared:
                plain = TrainingPlan(epochs=self.plan.epochs, seed=self.plan.seed)
                trainer = self.clinic.trainer(plain, without_vq=True)
                if self._train(trainer, "without VQ"):
                    raise KeyboardInterrupt
                found = (trainer.figures(), trainer.rows[-1].stop if trainer.rows else None)
            self.state["baseline"] = [None if f is None else f.to_dict() for f in found]
            self.state.pop("training", None)
        val, stop = (None if f is None else Figures.from_dict(f) for f in self.state["baseline"])
        return val, stop

    @cached_property
    def _can_be_compared(self) -> bool:
        """Whether the task tells an accuracy, and the model runs without its VQ layers."""
        if self.clinic.before is None or self.clinic.before.accuracy is None:
            return False
        model = self.clinic.context.copy(training=False)
        batch = next(iter(self.clinic.splits.in_order()))
        return bypassable(model, self.clinic.context.task, batch, self.clinic.layers(model))

    def _trial(self, prescription: Prescription, goals: Goals) -> Tried | None:
        if not self.settings.trial:
            return None
        if "trial" not in self.state:
            tried = hold_trial(self.clinic.trainer, prescription, goals, self._heard)
            self.state["trial"] = tried.to_dict()
            self._save()
        return Tried.from_dict(self.state["trial"])

    def _train(self, trainer: Trainer, phase: str) -> bool:
        """Train, keeping the state after every epoch; return whether it was interrupted."""
        kept = self.state.get("training")
        if kept is not None and kept["phase"] == phase:
            trainer.load_state_dict(kept["trainer"])

        def after_epoch(row: Epoch) -> None:
            self.state["training"] = {"phase": phase, "trainer": trainer.state_dict()}
            self._save()
            self._heard(phase, row, trainer.plan.epochs)

        try:
            trainer.run(after_epoch)
        except KeyboardInterrupt:
            kept = self.state.get("training")
            if kept is None or kept["phase"] != phase or phase != "retraining":
                raise
            trainer.load_state_dict(kept["trainer"])
            return True
        return False

    def _heard(self, phase: str, row: Epoch, epochs: int) -> None:
        if self.watcher is not None:
            self.watcher.epoch(phase, row, epochs)

    def _save(self) -> None:
        save_state(self.state, state_path(self.output))


def _wanted_accuracy(goals: Goals, without_vq: Figures | None, tolerance: float) -> float | None:
    """Return the accuracy to reach: as wished, or that without VQ; what ends the training is stricter."""
    if goals.min_accuracy is not None or without_vq is None or without_vq.accuracy is None:
        return goals.min_accuracy
    return without_vq.accuracy - tolerance


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end a run as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _write(clinic: Clinic, result: _Result, output: Path, overwrite: bool) -> None:
    state = result.trainer.model.state_dict()
    changes = {
        raw: _array(state[name])
        for name, raw in clinic.patient.raw_keys.items()
        if name in state and raw in clinic.checkpoint.tensors
    }
    context = FileContext(checkpoint=clinic.checkpoint, views=())
    changes.update(new_moments(context.optimizers, result.trainer.optimizer))
    retraining = result.retraining
    note = {
        "vqdoctor": vqdoctor.__version__,
        "command": "fix --retrain",
        "training_plan": retraining.plan.to_dict(),
        RETRAINED: _record(result, context.record),
        "remedies": [prescribed.remedy.name for prescribed in _applied(result)],
        "cured": retraining.cured,
    }
    write_checkpoint(clinic.checkpoint, output, changes, note=note, overwrite=overwrite)


def _record(result: _Result, before: TrainingRecord) -> dict[str, float | int | None]:
    """Return what the file's probes have to know of the training that it now comes from.

    Where the EMA neither starts anew nor forgets faster, its start values have both trainings' updates
    behind them.
    """
    plan, rows = result.retraining.plan, result.retraining.epochs
    anew = plan.data_init or plan.decay is not None
    steps = result.trainer.steps
    return {
        "vq_weight": rows[-1].vq_weight if rows else None,
        "decay": plan.decay,
        "epochs": len(rows),
        "updates": steps if anew or before.updates is None else before.updates + steps,
    }


def _array(tensor: torch.Tensor) -> NDArray[np.generic]:
    tensor = tensor.detach().cpu()
    return np.asarray(tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy())


def _applied(result: _Result) -> tuple[Prescribed, ...]:
    if result.tried is None:
        return result.prescription.applied
    return tuple(
        p for p in result.tried.prescribed(result.prescription) if p.remedy.name in result.tried.names
    )


def _repairs(result: _Result) -> Iterator[Repair]:
    """Yield what became of every remedy; the figures are those of the run that it was part of."""
    before, after = (_plain(f) for f in (result.retraining.before, result.retraining.after))
    arms = {arm.remedies: arm for arm in result.retraining.trial}
    untreated = _plain(arms[()].figures) if () in arms else {}
    chosen = {prescribed.remedy.name for prescribed in _applied(result)}
    for prescribed in result.prescription.remedies:
        name = prescribed.remedy.name
        if prescribed.refused:
            yield Repair(remedy=name, status="skipped", reason=prescribed.refused)
        elif name in chosen:
            yield Repair(
                remedy=name, status="applied", reason=_because(prescribed), before=before, after=after
            )
        else:
            alone = arms.get((name,))
            yield Repair(
                remedy=name,
                status="reverted",
                reason="the trial did better without it",
                before=untreated,
                after={} if alone is None else _plain(alone.figures),
            )
    for name in sorted(chosen - {prescribed.remedy.name for prescribed in result.prescription.remedies}):
        yield Repair(remedy=name, status="applied", reason="won the trial", before=before, after=after)


def _because(prescribed: Prescribed) -> str:
    return ", ".join(prescribed.because) or "part of every retraining"


def _plain(figures: Figures | None) -> dict[str, float]:
    """Return the figures that repairs quote: of several layers the worst."""
    if figures is None:
        return {}
    found: dict[str, float] = {"task_loss": figures.loss}
    if figures.layers:
        found["perplexity"] = min(layer.perplexity for layer in figures.layers.values())
        found["active"] = float(min(layer.active for layer in figures.layers.values()))
        found["active_share"] = min(layer.active_share for layer in figures.layers.values())
    if figures.accuracy is not None:
        found["accuracy"] = figures.accuracy
    if figures.ece is not None:
        found["ece"] = figures.ece
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _left_in_source(result: _Result, after: Report) -> Iterator[SourceChange]:
    """Yield what the retraining did beside the user's source: there it is still to be done."""
    still = {finding.code for finding in after.findings}
    for prescribed in _applied(result):
        remedy, because = prescribed.remedy, ", ".join(prescribed.because)
        if remedy.name == "straight-through" and still & set(prescribed.because):
            layers = ", ".join(prescribed.layers)
            why = f"{layers} has no straight-through estimator ({because}): end it with"
            yield SourceChange(why=why, code=remedy.code)
        elif remedy.changes_model:
            why = f"the retrained weights need the source to do the same as {remedy.name}"
            yield SourceChange(why=why, code=remedy.code)
        elif prescribed.because and remedy.plan is not None and remedy.name in TRAINING_ONLY:
            why = f"a training from the source will need {remedy.name} again ({because})"
            yield SourceChange(why=why, code=remedy.code)


__all__ = ["Arm", "Watcher", "retrain"]
