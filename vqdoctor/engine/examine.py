"""The examination: a checkpoint or a live model, and perhaps a batch, in; a ranked report out."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import vqdoctor
from vqdoctor.checkpoint import Checkpoint, LazyTensor, open_checkpoint
from vqdoctor.checks import all_checks
from vqdoctor.core.errors import MissingPackageError, UserError
from vqdoctor.core.evidence import (
    CodebookGradient,
    DataMatch,
    Evidence,
    ForeignObjects,
    GradientPath,
    LossBalance,
    LossUse,
    OptimizerMemory,
    TaskGradient,
    Trace,
    TrainingRecord,
    Unavailable,
    Usage,
)
from vqdoctor.core.report import CheckpointSummary, LayerSummary, Report
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine.batch import Arrays, load_batch
from vqdoctor.engine.gather import Gathered
from vqdoctor.engine.judge import choose, judge
from vqdoctor.engine.rank import plan, rank
from vqdoctor.engine.verdict import verdict
from vqdoctor.layouts import Found, find_quantizers
from vqdoctor.layouts.find import lies_in
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.geometry import Rows
from vqdoctor.probes import dump, file
from vqdoctor.remedies import all_remedies

if TYPE_CHECKING:  # both need torch
    from vqdoctor.capture.discover import Discovered
    from vqdoctor.probes.model import ModelContext

Progress = Callable[[str], None]

VQ_LOSS_KINDS = (CodebookGradient, LossUse, Trace)
"""What would accuse a model of doing without a VQ loss, where it is merely not known which that is."""
NONE_IN_FILE = (
    "a layer that stores no codebook, such as FSQ, does not show in a file: run the model, with --task, or "
    "--model and --data"
)
NONE_SHOWN = "the model was run, and none of its modules gives few different vectors for many"
TRAIN_BATCHES = 4
"""Training batches that the gradients are measured on, where the user does not say."""


def examine(
    path: str | os.PathLike[str] | None,
    *,
    data: Any = None,
    user_model: UserModel | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
    vectors: dict[str, Rows] | None = None,
) -> Report:
    """Examine a checkpoint or a live model and return the ranked report.

    Args:
        path: the checkpoint file; None where `user_model.model` is a live model, to be examined as it is.
        data: a batch file with x (and y), or with z_e and/or indices dumped from any framework; from
            Python also the arrays themselves, by name or as x or (x, y), or a DataLoader.
        user_model: the user's model or task; without it x needs a task that the checkpoint names.
        settings: what the user set.
        progress: told in a few words what is being done.
        vectors: filled with each layer's z_e, float32 [N, D], where the data tells it.

    Raises:
        UserError: if a file cannot be read, a setting names nothing, or the user's code fails.
    """
    settings, user_model = settings or Settings(), user_model or UserModel()
    say = progress or (lambda _: None)
    checks = choose(all_checks(), settings)
    arrays = None if user_model.losses is not None else _arrays(data)
    _refuse_nonsense(path, data, arrays, user_model)
    with contextlib.ExitStack() as stack:
        say("reading the checkpoint")
        checkpoint = open_checkpoint(_saved(stack, user_model) if path is None else path)
        sha256 = checkpoint.verify() if settings.verify and path is not None else None
        found = _find(checkpoint, settings, live=_is_live(path, data, user_model))
        case = _Case(
            path=path,
            checkpoint=checkpoint,
            views=found.views,
            arrays=arrays,
            data=data,
            user_model=user_model,
            settings=settings,
            say=say,
            vectors={} if vectors is None else vectors,
        )
        gathered = Gathered()
        _gather_file(case, gathered)
        shown = _gather_batch(case, gathered)
        views = (*found.views, *shown.views)
        summary = None if path is None else _file(case, os.fspath(path), sha256, views)
    judgement = judge(checks, [v.name for v in views], gathered.evidence, gathered.unavailable)
    findings = rank(judgement.findings, checks, gathered.evidence)
    layers = tuple(_summary(view) for view in views)
    return Report(
        version=vqdoctor.__version__,
        checkpoint=summary,
        layers=layers,
        evidence=tuple(gathered.evidence),
        unavailable=tuple(gathered.unavailable),
        outcomes=(*judgement.outcomes, *gathered.crashed),
        findings=findings,
        plan=plan(findings, all_remedies()),
        verdict=verdict(findings, layers, gathered.evidence),
        candidates=() if views else found.candidates,
        notes=(*checkpoint.notes, *_notes(found, shown), *shown.notes),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Shown:
    """What a batch showed beside the evidence: notes on the model, and VQ layers that no key gives away."""

    notes: tuple[str, ...] = ()
    views: tuple[QuantizerView, ...] = ()


def _notes(found: Found, shown: _Shown) -> tuple[str, ...]:
    """Return the notes on the file's layers that still hold after a look at the model."""
    return tuple(note for note in found.notes if not (shown.views and note in found.unseen))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Case:
    """What is examined: the checkpoint (of a live model, one made for the purpose), the data, the options."""

    path: str | os.PathLike[str] | None
    checkpoint: Checkpoint
    views: tuple[QuantizerView, ...]
    arrays: Arrays | None
    data: Any
    user_model: UserModel
    settings: Settings
    say: Progress
    vectors: dict[str, Rows]


def _arrays(data: Any) -> Arrays | None:
    """Return the arrays of a batch by name; None where there is none, or it is no arrays."""
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


def _is_live(path: object, data: object, user_model: UserModel) -> bool:
    """Whether the user's model is run; a live model alone, without anything to run it on, is not."""
    return user_model.runs and not (path is None and user_model.task is None and data is None)


def _find(checkpoint: Checkpoint, settings: Settings, *, live: bool) -> Found:
    """Return the VQ layers of the file; none where the one that is named may show when the model is run."""
    try:
        return find_quantizers(
            checkpoint.tensors,
            layer=settings.layer,
            codebook_key=settings.codebook_key,
            orientation=settings.orientation,
        )
    except UserError:
        if not live or settings.layer is None or settings.codebook_key is not None:
            raise
        return Found(views=())


def _is_dump(arrays: Arrays | None) -> bool:
    return any(name.partition("/")[0] in ("z_e", "indices") for name in arrays or ())


def _refuse_nonsense(path: object, data: object, arrays: Arrays | None, user_model: UserModel) -> None:
    """Refuse what cannot be run, or would be ignored, before anything is read."""
    x = arrays is not None and "x" in arrays and not _is_dump(arrays)
    runs = user_model.runs or x
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


def _saved(stack: contextlib.ExitStack, user_model: UserModel) -> Path:
    from vqdoctor.engine.patient import saved

    return stack.enter_context(saved(user_model.model, user_model.optimizer))


def _gather_file(case: _Case, gathered: Gathered) -> None:
    context = _file_context(case, case.views)
    absent: list[type[Evidence]] = []
    if case.path is None:
        absent = [ForeignObjects, TrainingRecord]
        gathered.miss(absent, "checkpoint", "a live model is examined, and no file", "")
        if case.user_model.optimizer is None:
            gathered.miss((OptimizerMemory,), "checkpoint", "no optimizer was given", "optimizer=…")
            absent.append(OptimizerMemory)
    probes = [probe for probe in file.all_probes() if not set(probe.kinds) & set(absent)]
    gathered.run(probes, context, "checkpoint", case.say)


def _file_context(case: _Case, views: tuple[QuantizerView, ...]) -> file.FileContext:
    return file.FileContext(
        checkpoint=case.checkpoint,
        views=views,
        seed=case.settings.seed,
        histogram=case.settings.histogram,
        verify=case.settings.verify,
    )


def _gather_batch(case: _Case, gathered: Gathered) -> _Shown:
    """Gather what a dump or a model tells."""
    user_model, arrays = case.user_model, case.arrays
    if _is_live(case.path, case.data, user_model):
        return _gather_live(case, gathered)
    if not case.views:
        return _Shown(notes=(NONE_IN_FILE,))
    if arrays is None:
        gathered.miss(_untold(gathered), "batch", "no data was given", "--data BATCH")
    elif _is_dump(arrays):
        context = dump.DumpContext(
            views=case.views, arrays=arrays, seed=case.settings.seed, histogram=case.settings.histogram
        )
        gathered.run(dump.all_probes(), context, "batch", case.say)
        case.vectors.update(context.asked_vectors())
        why = "dumped vectors tell nothing of the model's gradients and outputs"
        gathered.miss(_untold(gathered), "batch", why, "--data with x (and y)")
    elif "x" in arrays:
        return _gather_live(case, gathered)
    else:
        where = case.data if isinstance(case.data, str | os.PathLike) else "the batch"
        raise UserError(
            f"{where} holds {', '.join(arrays) or 'nothing'}",
            "--data takes x (and y), or z_e and/or indices",
        )
    return _Shown()


def _untold(gathered: Gathered, layer: str | None = None) -> list[type[Evidence]]:
    """Return the kinds that some check asks for, and of which nothing is known, not even why.

    With a layer, what is known of other layers does not count.
    """
    items: list[Evidence | Unavailable] = [*gathered.evidence, *gathered.unavailable]
    by_layer = {w.evidence.kind for check in all_checks() if check.scope == "both" for w in check.wants}
    told = {i.kind for i in items if layer in (None, i.layer) or (i.layer is None and i.kind not in by_layer)}
    wanted = {wanted.evidence.kind: wanted.evidence for check in all_checks() for wanted in check.wants}
    return [kind for name, kind in sorted(wanted.items()) if name not in told]


def _gather_live(case: _Case, gathered: Gathered) -> _Shown:
    from vqdoctor.engine.patient import admit, as_stored, same_randomness
    from vqdoctor.models.device import resolve
    from vqdoctor.models.untouched import untouched
    from vqdoctor.probes import model as model_probes

    settings = case.settings
    record = next((e for e in gathered.evidence if isinstance(e, TrainingRecord)), None)
    device = resolve(settings.device)
    case.say("building the model")
    with same_randomness(settings.seed):
        patient = admit(
            path=None if case.path is None else Path(case.path),
            checkpoint=case.checkpoint,
            views=case.views,
            record=record,
            arrays=case.arrays,
            data=case.data,
            user_model=case.user_model,
            batches=settings.batches,
        )
        context = model_probes.ModelContext(
            model=patient.model,
            task=patient.task,
            views=patient.views,
            codebook_names=patient.codebook_names,
            record=record,
            arrays=case.arrays or {},
            device=device,
            seed=settings.seed,
            histogram=settings.histogram,
            train_batches=settings.batches or TRAIN_BATCHES,
            probe_steps=settings.probe_steps,
            progress=case.say,
        )
        with untouched(patient.model, settings.seed, device):
            _ = context.layers  # the first batch, after which the task knows its losses
            found = _discover(case, context, gathered)
            explicit = tuple(as_stored(view, patient) for view in found.explicit)
            if explicit:
                context = context.also(found)
                _gather_file_of(case, explicit, gathered)
            unknown = VQ_LOSS_KINDS if patient.vq_loss_unknown else ()
            why, hint = "no VQ loss was recognised in the model's output", "--vq-loss KEY, or --task"
            gathered.miss(unknown, "batch", why, hint)
            probes = [probe for probe in model_probes.all_probes() if not set(probe.kinds) & set(unknown)]
            if found.implicit:
                own = [p for p in model_probes.probes_without_codebook(not context.views) if p in probes]
                gathered.run(own, context.others(found), "batch", case.say)
                probes = probes if context.views else [p for p in probes if p not in own]
            gathered.run(probes, context, "batch", case.say)
            case.vectors.update(model_probes.asked_vectors(context))
            _miss_codebook(found.implicit, gathered)
    gathered.unavailable += [
        Unavailable(kind=kind.kind, layer=name, source="batch", reason="the model does not have this layer")
        for name in patient.absent
        for kind in (Usage, DataMatch, GradientPath, TaskGradient, LossBalance)
    ]
    balances = [e for e in gathered.evidence if isinstance(e, LossBalance)]
    unknown_weight = "the VQ loss's weight in training is unknown (--trained-vq-weight tells it)"
    more = [unknown_weight] if balances and context.vq_weight is None else []
    more += [] if case.views or found.views else [NONE_SHOWN]
    return _Shown(notes=(*patient.notes, *more), views=(*explicit, *found.implicit))


def _discover(case: _Case, context: ModelContext, gathered: Gathered) -> Discovered:
    """Return the VQ layers that only their output gives away; none where the file has those that are named.

    Raises:
        UserError: if the user names a layer that neither the file nor the model has.
    """
    from vqdoctor.capture.discover import Discovered

    layer = case.settings.layer
    if case.settings.codebook_key is not None or (layer is not None and case.views):
        return Discovered()
    case.say("looking for VQ layers that no key gives away")
    try:
        found = context.discover()
    except UserError:
        raise
    except Exception as error:  # the layers that are known can be examined all the same
        gathered.crash("discovery", f"{type(error).__name__}: {error}")
        return Discovered()
    if layer is None:
        return found
    if not (named := found.only(lambda name: lies_in(layer, name))).views:
        known = ", ".join(view.name for view in found.views)
        hint = f"those that show in the model are {known}" if known else "none shows in the model either"
        raise UserError(f"no VQ layer {layer!r} in the file", hint)
    return named


def _gather_file_of(case: _Case, views: tuple[QuantizerView, ...], gathered: Gathered) -> None:
    """Gather what the file tells of layers that only the model gave away."""
    stored = [view for view in views if view.keys["codebook"] in case.checkpoint.tensors]
    told = Gathered()
    told.run(file.all_probes(), _file_context(case, tuple(stored)), "checkpoint", case.say)
    names = {view.name for view in stored}
    gathered.evidence += [item for item in told.evidence if item.layer in names]
    gathered.unavailable += [item for item in told.unavailable if item.layer in names]
    gathered.crashed += told.crashed


def _miss_codebook(views: tuple[QuantizerView, ...], gathered: Gathered) -> None:
    """Say why a layer without a codebook lacks the evidence that nothing was said of."""
    reason = "the layer stores no codebook: its codes are combinations of levels"
    for view in views:
        untold = _untold(gathered, view.name)
        gathered.unavailable += [
            Unavailable(kind=kind.kind, layer=view.name, source="batch", reason=reason) for kind in untold
        ]


def _file(case: _Case, path: str, sha256: str | None, views: tuple[QuantizerView, ...]) -> CheckpointSummary:
    return CheckpointSummary(
        path=path,
        fingerprint=case.checkpoint.fingerprint(_vq_tensors(case, views)),
        sha256=sha256,
        container=case.checkpoint.container,
        bytes=case.checkpoint.bytes,
    )


def _vq_tensors(case: _Case, views: tuple[QuantizerView, ...]) -> list[LazyTensor]:
    keys = dict.fromkeys(key for view in views for key in view.keys.values())
    return [case.checkpoint.tensors[key] for key in keys if key in case.checkpoint.tensors]


def _summary(view: QuantizerView) -> LayerSummary:
    return LayerSummary(
        name=view.name,
        layout=view.layout,
        layout_confidence=view.confidence.label,
        num_codes=view.num_codes,
        dim=view.dim,
        keys=dict(view.keys),
    )
