"""The examination: a checkpoint or a live model, and perhaps a batch, in; a ranked report out."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import vqdoctor
from vqdoctor.checks import all_checks
from vqdoctor.core.errors import UserError
from vqdoctor.core.evidence import (
    DataMatch,
    Evidence,
    ForeignObjects,
    GradientPath,
    LossBalance,
    OptimizerMemory,
    TaskGradient,
    TrainingRecord,
    Unavailable,
    Usage,
)
from vqdoctor.core.report import CheckpointSummary, LayerSummary, Report
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine.evaluate import choose, evaluate
from vqdoctor.engine.gather import Gathered
from vqdoctor.engine.plan import make_plan
from vqdoctor.engine.rank import rank
from vqdoctor.engine.session import Progress, Session
from vqdoctor.engine.verdict import verdict
from vqdoctor.layouts.find import lies_in
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.geometry import Rows
from vqdoctor.probes import dump, file

if TYPE_CHECKING:  # both need torch
    from vqdoctor.capture.discover import Discovered
    from vqdoctor.probes.model import ModelContext

NONE_IN_FILE = (
    "a layer that stores no codebook, such as FSQ, does not show in a file: run the model, with --task, or "
    "--model and --data"
)
NONE_SHOWN = "the model was run, and none of its modules gives few different vectors for many"
NO_CODEBOOK = "the layer stores no codebook: its codes are combinations of levels"
UNKNOWN_WEIGHT = "the VQ loss's weight in training is unknown (--trained-vq-weight tells it)"


def examine(
    path: str | os.PathLike[str] | None,
    *,
    data: Any = None,
    user_model: UserModel | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Report:
    """Open a checkpoint or take a live model, examine it and return the ranked report.

    Args:
        path: the checkpoint file; None where `user_model.model` is a live model, to be examined as it is.
        data: the data, as for `Session.open`.
        user_model: the user's model or task; without it x needs a task that the checkpoint names.
        settings: the user's settings.
        progress: told in a few words what is being done.

    Raises:
        UserError: if a file cannot be read, a setting names nothing, or the user's code fails.
    """
    choose(all_checks(), settings or Settings())  # a wrong code is told before anything is read
    with Session.open(
        path, data=data, user_model=user_model, settings=settings, progress=progress
    ) as session:
        return examine_session(session).report


@dataclass(kw_only=True, eq=False)
class Examination:
    """A report, and what a repair needs beside it.

    Attributes:
        report: the ranked report.
        vectors: each layer's z_e, float32 [N, D], where the data tells it.
    """

    report: Report
    vectors: dict[str, Rows]


@dataclass(kw_only=True, eq=False)
class _Batch:
    """The notes, vectors and layers without a codebook in the file that a dump or a model showed."""

    notes: tuple[str, ...] = ()
    views: tuple[QuantizerView, ...] = ()
    vectors: dict[str, Rows] = field(default_factory=dict)


def examine_session(session: Session, *, histogram: bool = False) -> Examination:
    """Examine an opened checkpoint.

    Args:
        session: the opened checkpoint, or live model.
        histogram: whether the report carries the usage of every code, whatever the settings say.

    Raises:
        UserError: if a setting names nothing, or the user's code fails.
    """
    checks = choose(all_checks(), session.settings)
    checkpoint, found, gathered = session.checkpoint, session.found, Gathered()
    sha256 = session.sha256
    _gather_file(session, gathered, histogram)
    shown = _gather_batch(session, gathered, histogram)
    views = (*found.views, *shown.views)
    summary = None
    if session.path is not None:
        keys = dict.fromkeys(key for view in views for key in view.keys.values())
        tensors = [checkpoint.tensors[key] for key in keys if key in checkpoint.tensors]
        summary = CheckpointSummary(
            path=os.fspath(session.path),
            fingerprint=checkpoint.fingerprint(tensors),
            sha256=sha256,
            container=checkpoint.container,
            bytes=checkpoint.bytes,
        )
    layers = tuple(
        LayerSummary(
            name=view.name,
            layout=view.layout,
            layout_confidence=view.confidence.label,
            num_codes=view.num_codes,
            dim=view.dim,
            keys=dict(view.keys),
        )
        for view in views
    )
    evaluated = evaluate(checks, [v.name for v in views], gathered.evidence, gathered.unavailable)
    findings = rank(evaluated.findings, checks, gathered.evidence)
    report = Report(
        version=vqdoctor.__version__,
        checkpoint=summary,
        layers=layers,
        evidence=tuple(gathered.evidence),
        unavailable=tuple(gathered.unavailable),
        outcomes=(*evaluated.outcomes, *gathered.crashed),
        findings=findings,
        plan=make_plan(findings, trained_layers(layers)).steps,
        verdict=verdict(findings, layers, gathered.evidence, evaluated.outcomes),
        candidates=() if views else found.candidates,
        notes=(
            *checkpoint.notes,
            *(note for note in found.notes if not (shown.views and note in found.unseen)),
            *shown.notes,
        ),
    )
    return Examination(report=report, vectors=shown.vectors)


def trained_layers(layers: tuple[LayerSummary, ...]) -> tuple[str, ...]:
    """Return the names of the layers that have a codebook to be trained."""
    return tuple(layer.name for layer in layers if "codebook" in layer.keys)


def _gather_file(session: Session, gathered: Gathered, histogram: bool) -> None:
    """Gather the evidence of the file's probes; a live model lacks some of it."""
    absent: list[type[Evidence]] = []
    if session.path is None:
        absent = [ForeignObjects, TrainingRecord]
        gathered.miss(absent, "checkpoint", "a live model is examined, and no file", "")
        if session.user_model.optimizer is None:
            gathered.miss((OptimizerMemory,), "checkpoint", "no optimizer was given", "optimizer=…")
            absent.append(OptimizerMemory)
    probes = [probe for probe in file.all_probes() if not set(probe.kinds) & set(absent)]
    gathered.run(probes, session.file_context(histogram=histogram), "checkpoint", session.say)


def _gather_batch(session: Session, gathered: Gathered, histogram: bool) -> _Batch:
    """Gather the evidence of a dump or a model."""
    arrays, views = session.arrays, session.found.views
    if session.runs_users_model:
        return _gather_live(session, gathered, histogram)
    if not views:
        return _Batch(notes=(NONE_IN_FILE,))
    if arrays is None:
        gathered.miss(_untold(gathered), "batch", "no data was given", "--data BATCH")
        return _Batch()
    if session.is_dump:
        context = dump.DumpContext(
            views=views,
            arrays=arrays,
            seed=session.settings.seed,
            histogram=histogram or session.settings.histogram,
        )
        gathered.run(dump.all_probes(), context, "batch", session.say)
        why = "dumped vectors tell nothing of the model's gradients and outputs"
        gathered.miss(_untold(gathered), "batch", why, "--data with x (and y)")
        return _Batch(vectors=dict(context.asked_vectors()))
    if "x" in arrays:
        return _gather_live(session, gathered, histogram)
    where = session.data if isinstance(session.data, str | os.PathLike) else "the batch"
    raise UserError(
        f"{where} holds {', '.join(arrays) or 'nothing'}", "--data takes x (and y), or z_e and/or indices"
    )


def _untold(gathered: Gathered, layer: str | None = None) -> list[type[Evidence]]:
    """Return the kinds that some check asks for, and of which nothing is known, not even why.

    With a layer, what is known of other layers does not count.
    """
    items: list[Evidence | Unavailable] = [*gathered.evidence, *gathered.unavailable]
    by_layer = {w.evidence.kind for check in all_checks() if check.scope == "both" for w in check.wants}
    told = {i.kind for i in items if layer in (None, i.layer) or (i.layer is None and i.kind not in by_layer)}
    wanted = {wanted.evidence.kind: wanted.evidence for check in all_checks() for wanted in check.wants}
    return [kind for name, kind in sorted(wanted.items()) if name not in told]


def _gather_live(session: Session, gathered: Gathered, histogram: bool) -> _Batch:
    """Gather the evidence of a model at work, and the layers that no key of the file gives away."""
    from vqdoctor.models.untouched import untouched
    from vqdoctor.probes import model as model_probes

    model = session.model
    context = session.model_context(histogram=histogram)
    with untouched(model.model, session.settings.seed, session.device):
        _ = context.layers  # the first batch, after which the task knows its losses
        found = _discover(session, context, gathered)
        explicit = tuple(model.as_stored(view) for view in found.explicit)
        if explicit:
            context = context.also(found)
            _gather_file_of(session, explicit, gathered, histogram)
        probes = model_probes.all_probes()
        if model.vq_loss_unknown:  # no model is accused of doing without a loss that was not recognised
            why, hint = "no VQ loss was recognised in the model's output", "--vq-loss KEY, or --task"
            blind = [kind for probe in probes if probe.needs_vq_loss for kind in probe.kinds]
            gathered.miss(blind, "batch", why, hint)
            probes = tuple(probe for probe in probes if not probe.needs_vq_loss)
        if found.implicit:
            own = [p for p in model_probes.without_codebook(alone=not context.views) if p in probes]
            gathered.run(own, context.others(found), "batch", session.say)
            probes = probes if context.views else tuple(p for p in probes if p not in own)
        gathered.run(probes, context, "batch", session.say)
        vectors = dict(model_probes.asked_vectors(context))
    for view in found.implicit:
        gathered.unavailable += [
            Unavailable(kind=kind.kind, layer=view.name, source="batch", reason=NO_CODEBOOK)
            for kind in _untold(gathered, view.name)
        ]
    gathered.unavailable += [
        Unavailable(kind=kind.kind, layer=name, source="batch", reason="the model does not have this layer")
        for name in model.absent
        for kind in (Usage, DataMatch, GradientPath, TaskGradient, LossBalance)
    ]
    balanced = any(isinstance(item, LossBalance) for item in gathered.evidence)
    more = [UNKNOWN_WEIGHT] if balanced and context.vq_weight is None else []
    more += [] if session.found.views or found.views else [NONE_SHOWN]
    return _Batch(notes=(*model.notes, *more), views=(*explicit, *found.implicit), vectors=vectors)


def _discover(session: Session, context: ModelContext, gathered: Gathered) -> Discovered:
    """Return the VQ layers that only their output gives away; none where the file has those that are named.

    Raises:
        UserError: if the user names a layer that neither the file nor the model has.
    """
    from vqdoctor.capture.discover import Discovered

    layer = session.settings.layer
    if session.settings.codebook_key is not None or (layer is not None and session.found.views):
        return Discovered()
    session.say("looking for VQ layers that no key gives away")
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


def _gather_file_of(
    session: Session, views: tuple[QuantizerView, ...], gathered: Gathered, histogram: bool
) -> None:
    """Gather what the file tells of layers that only the model gave away."""
    stored = tuple(view for view in views if view.keys["codebook"] in session.checkpoint.tensors)
    told = Gathered()
    told.run(file.all_probes(), session.file_context(stored, histogram=histogram), "checkpoint", session.say)
    names = {view.name for view in stored}
    gathered.evidence += [item for item in told.evidence if item.layer in names]
    gathered.unavailable += [item for item in told.unavailable if item.layer in names]
    gathered.crashed += told.crashed
