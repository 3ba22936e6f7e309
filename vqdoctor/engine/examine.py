"""The examination: a checkpoint or a live model, and perhaps a batch, in; a ranked report out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import vqdoctor
from vqdoctor.checks import all_checks
from vqdoctor.core import evidence as kinds
from vqdoctor.core.check import Check
from vqdoctor.core.errors import UserError
from vqdoctor.core.evidence import Evidence, Unavailable
from vqdoctor.core.launcher import Launched
from vqdoctor.core.report import CheckpointSummary, LayerSummary, Report
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine.decide import separating, with_shown
from vqdoctor.engine.dumped import dumped_context, usages
from vqdoctor.engine.evaluate import choose, evaluate
from vqdoctor.engine.gather import CRASHED_PROBE, Gathered
from vqdoctor.engine.plan import joining, make_plan
from vqdoctor.engine.rank import rank
from vqdoctor.engine.session import Progress, Session
from vqdoctor.engine.verdict import verdict
from vqdoctor.engine.weights import weights_of
from vqdoctor.layouts import state_dicts
from vqdoctor.layouts.attributes import attributes
from vqdoctor.layouts.find import lies_in
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.geometry import Rows
from vqdoctor.probes import dump, file
from vqdoctor.probes.trace import courses
from vqdoctor.saved.trace import read_trace

if TYPE_CHECKING:  # both need torch
    from vqdoctor.capture.discover import Discovered
    from vqdoctor.probes.model import ModelContext

NONE_IN_FILE = (
    "a layer that stores no codebook, such as FSQ, does not show in a file: run the model, with --task, or "
    "--model and --data"
)
NONE_SHOWN = "the model was run, and none of its modules gives few different vectors for many"
NO_CODEBOOK = "the layer stores no codebook: its codes are combinations of levels"
UNKNOWN_WEIGHT = "the VQ loss's weight in training is unknown (--trained-vq-weight states it)"


def examine(
    path: str | os.PathLike[str] | None,
    *,
    data: object = None,
    user_model: UserModel | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
    launched: Launched | None = None,
) -> Report:
    """Open a checkpoint or take a live model, examine it and return the ranked report.

    Args:
        path: the checkpoint file; None where `user_model.model` is a live model, to be examined as it is.
        data: the data, as for `Session.open`.
        user_model: the user's model or task; without it x needs a task that the checkpoint names.
        settings: the user's settings.
        progress: gets each step in a few words.
        launched: the processes that torch's launcher started, all of which call this; None is a single one.

    Raises:
        UserError: if a file cannot be read, a setting names an unknown thing, or the user's code fails.
    """
    choose(all_checks(), settings or Settings())  # a wrong code is refused before anything is read
    with Session.open(
        path, data=data, user_model=user_model, settings=settings, progress=progress, launched=launched
    ) as session:
        return examine_session(session).report


@dataclass(kw_only=True, eq=False)
class Examination:
    """A report, and the vectors that a repair needs beside it.

    Attributes:
        report: the ranked report.
        views: its layers.
        vectors: each layer's z_e, float32 [N, D], where the data holds it.
    """

    report: Report
    views: tuple[QuantizerView, ...]
    vectors: dict[str, Rows]


def examine_session(session: Session) -> Examination:
    """Examine an opened checkpoint, or a live model.

    Raises:
        UserError: if a setting names an unknown thing, or the user's code fails.
    """
    checks = choose(all_checks(), session.settings)
    checkpoint, found, gathered = session.checkpoint, session.found, Gathered()
    sha256 = session.sha256
    if session.runs_users_model or (not session.is_dump and "x" in (session.arrays or ())):
        gathered.notes += _without_mapped(session)
        found = session.found
    _gather_file(session, gathered)
    _gather_batch(session, gathered)
    views = (*found.views, *gathered.views)
    _gather_trace(session.settings.trace, [view.name for view in views], gathered)
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
    file_notes = (note for note in found.notes if not (gathered.views and note in found.unseen))
    unread = (f"not read: {line}" for line in found.unread)
    report = Report(
        version=vqdoctor.__version__,
        checkpoint=summary,
        layers=tuple(
            LayerSummary(
                name=view.name,
                layout=view.layout,
                layout_confidence=view.confidence.label,
                num_codes=view.num_codes,
                dim=view.dim,
                keys=dict(view.keys),
                attributes=attributes(view),
            )
            for view in views
        ),
        evidence=tuple(gathered.evidence),
        unavailable=tuple(gathered.unavailable),
        outcomes=tuple(gathered.crashed),
        findings=(),
        plan=(),
        verdict="inconclusive",
        candidates=() if views else found.candidates,
        unread=found.unread,
        notes=(*checkpoint.notes, *unread, *file_notes, *gathered.notes),
    )
    seen = gathered.by_logits
    by_logits = [view.name for view in views if view.lookup == "logits" or view.name in seen]
    return Examination(report=concluded(report, checks, by_logits), views=views, vectors=gathered.vectors)


def _gather_trace(path: Path | None, layers: Sequence[str], gathered: Gathered) -> None:
    """Gather the course of each layer over the training, of which a trace was given or not.

    Raises:
        UserError: if the trace cannot be read, or is of a model with other layers.
    """
    trace = None if path is None else read_trace(path)
    if trace is not None and layers:
        known = {layer.name for layer in trace.start.layers}
        if not known & set(layers):
            what = f"{path}: the trace is of the layers {', '.join(sorted(known)[:4])}"
            raise UserError(what, f"the checkpoint has {', '.join(layers[:4])}: give its own trace")
    for item in courses(trace, layers):
        if isinstance(item, Evidence):
            gathered.evidence.append(item)
        else:
            gathered.unavailable.append(item)


def concluded(report: Report, checks: Sequence[Check], by_logits: Sequence[str] = ()) -> Report:
    """Return a report with the findings, the plan and the verdict that its evidence leads to.

    Args:
        report: the report, with its evidence.
        checks: the checks to run.
        by_logits: layers whose codes are chosen by logits, wherever they lie.
    """
    crashed = (outcome for outcome in report.outcomes if outcome.code.startswith(CRASHED_PROBE))
    evaluated = evaluate(checks, [layer.name for layer in report.layers], report.evidence, report.unavailable)
    evaluated = with_shown(evaluated, checks, report.evidence)
    findings = rank(evaluated.findings, checks, report.evidence)
    trained = [layer.name for layer in report.layers if "codebook" in layer.keys]
    return replace(
        report,
        outcomes=(*evaluated.outcomes, *crashed),
        findings=findings,
        plan=make_plan(
            findings,
            trained,
            summaries=report.layers,
            weights=weights_of(report),
            by_logits=by_logits,
            joins=joining(report),
        ).steps,
        verdict=verdict(findings, report.layers, report.evidence, evaluated.outcomes),
    )


def _gather_file(session: Session, gathered: Gathered) -> None:
    """Gather the evidence of the file's probes; a live model lacks some of it."""
    absent: list[type[Evidence]] = []
    if session.path is None:
        absent = [kinds.ForeignObjects, kinds.TrainingRecord]
        gathered.miss(absent, "checkpoint", "a live model is examined, and no file", "")
        if session.user_model.optimizer is None:
            gathered.miss((kinds.OptimizerMemory,), "checkpoint", "no optimizer was given", "optimizer=…")
            absent.append(kinds.OptimizerMemory)
    probes = [probe for probe in file.all_probes() if not set(probe.kinds) & set(absent)]
    gathered.run(probes, session.file_context(), "checkpoint", session.say)


def _without_mapped(session: Session) -> list[str]:
    """Leave out the tables that a trained map makes the codes of, and return a note on each.

    The model shows such a layer by its output. A table that the user names stays.
    """
    if session.settings.codebook_key is not None or not session.found.views:
        return []
    from vqdoctor.capture.mapped import mapped
    from vqdoctor.models.process_group import as_single_process
    from vqdoctor.models.untouched import untouched

    model, context = session.model, session.model_context()
    with untouched(model.model, session.settings.seed, session.device), as_single_process():
        tables = mapped(context)
    session.leave_out(tables)
    return [
        f"{name}: {matrix} is trained and maps the stored table to the codes, and the table is not a codebook"
        for name, matrix in tables.items()
    ]


def _gather_batch(session: Session, gathered: Gathered) -> None:
    """Gather the evidence of a dump or a model."""
    arrays, views, settings = session.arrays, session.found.views, session.settings
    if session.runs_users_model:
        _gather_live(session, gathered)
    elif not views and any(name.partition("/")[0] == "indices" for name in arrays or ()):
        _gather_indices(session, gathered)
    elif not views:
        gathered.notes.append(NONE_IN_FILE)
    elif arrays is None:
        gathered.miss(_unknown(gathered), "batch", "no data was given", "--data BATCH")
    elif session.is_dump:
        context = dump.DumpContext(
            views=views,
            arrays=arrays,
            mask=settings.mask,
            seed=settings.seed,
            histogram=settings.histogram,
        )
        gathered.notes += context.notes()
        gathered.run(dump.all_probes(), context, "batch", session.say)
        why = "dumped vectors do not show the model's gradients and outputs"
        gathered.miss(_unknown(gathered), "batch", why, "--data with x (and y)")
        gathered.vectors.update(context.asked_vectors())
    elif "x" in arrays:
        _gather_live(session, gathered)
    else:
        where = session.data if isinstance(session.data, str | os.PathLike) else "the batch"
        hint = "--data takes x (and y), or z_e and/or indices"
        raise UserError(f"{where} holds {', '.join(arrays) or 'no arrays'}", hint)


def _gather_indices(session: Session, gathered: Gathered) -> None:
    """Gather the usage that dumped indices show of layers that store no table."""
    settings, states = session.settings, state_dicts(session.checkpoint.tensors)
    context, notes = dumped_context(
        session.arrays or {}, states, settings.mask, settings.seed, settings.histogram
    )
    for item in usages(context):
        if isinstance(item, Evidence):
            gathered.evidence.append(item)
        else:
            gathered.unavailable.append(item)
    for view in context.views:
        gathered.miss(_unknown(gathered, view.name), "batch", NO_CODEBOOK, "--task", view.name)
    gathered.notes += notes
    gathered.views += context.views


def _unknown(gathered: Gathered, layer: str | None = None) -> list[type[Evidence]]:
    """Return the kinds that some check needs and that have neither evidence nor a reason for its absence.

    With a layer, evidence of other layers does not count.
    """
    wanted = {want.evidence.kind: want.evidence for check in all_checks() for want in check.wants}
    by_layer = {want.evidence.kind for check in all_checks() if check.scope == "both" for want in check.wants}
    items: list[Evidence | Unavailable] = [*gathered.evidence, *gathered.unavailable]
    known = {
        item.kind
        for item in items
        if layer in (None, item.layer) or (item.layer is None and item.kind not in by_layer)
    }
    return [kind for name, kind in sorted(wanted.items()) if name not in known and kind is not kinds.Course]


def _gather_live(session: Session, gathered: Gathered) -> None:
    """Gather the evidence of a model at work, and its layers that no key of the file shows."""
    from vqdoctor.engine.in_part import refuse_in_part
    from vqdoctor.models.process_group import as_single_process
    from vqdoctor.models.untouched import untouched
    from vqdoctor.probes import model as model_probes
    from vqdoctor.probes.model import experiments

    model, context = session.model, session.model_context()
    with untouched(model.model, session.settings.seed, session.device), as_single_process():
        chosen = context.layers.items()  # after the first batch the task knows its losses
        gathered.by_logits |= {name for name, layer in chosen if layer.view.lookup == "logits"}
        refuse_in_part(model, context)
        found = _discover(session, context, gathered)
        explicit = tuple(model.as_stored(view) for view in found.explicit)
        if explicit:
            context = context.also(found)
            _gather_file_of(session, explicit, gathered)
        probes = tuple(probe for probe in model_probes.all_probes() if probe is not experiments.PROBE)
        if model.vq_loss_unknown:  # no model is accused of doing without a loss that was not recognised
            why, hint = "no VQ loss was recognised in the model's output", "--vq-loss KEY, or --task"
            every = model_probes.all_probes()
            blind = [kind for probe in every if probe.needs_vq_loss for kind in probe.kinds]
            gathered.miss(blind, "batch", why, hint)
            probes = tuple(probe for probe in probes if not probe.needs_vq_loss)
        others = context.others(found)
        if found.implicit:
            own = [p for p in model_probes.without_codebook(alone=not context.views) if p in probes]
            gathered.run(own, others, "batch", session.say)
            probes = probes if context.views else tuple(p for p in probes if p not in own)
        gathered.run(probes, context, "batch", session.say)
        gathered.views += (*explicit, *found.implicit)
        if context.views or not found.implicit:
            _experiment(session, context, gathered)
        if found.implicit:
            _experiment(session, others, gathered)
        gathered.vectors.update(model_probes.asked_vectors(context))
    for view in found.implicit:
        gathered.miss(_unknown(gathered, view.name), "batch", NO_CODEBOOK, "", view.name)
    for name in model.absent:
        lacking = (kinds.Usage, kinds.DataMatch, kinds.GradientPath, kinds.TaskGradient, kinds.LossBalance)
        gathered.miss(lacking, "batch", "the model does not have this layer", "", name)
    gathered.notes += model.notes
    if context.vq_weight is None and any(isinstance(item, kinds.LossBalance) for item in gathered.evidence):
        gathered.notes.append(UNKNOWN_WEIGHT)
    if not (session.found.views or found.views):
        gathered.notes.append(NONE_SHOWN)


def _experiment(session: Session, context: ModelContext, gathered: Gathered) -> None:
    """Run the experiments, if they were asked for, that separate what the other evidence leaves open."""
    from vqdoctor.probes.model import experiments

    if session.model.vq_loss_unknown:
        return
    names = [view.name for view in (*session.found.views, *gathered.views)]
    if context.experiment_steps:
        checks = choose(all_checks(), session.settings)
        evaluated = evaluate(checks, names, gathered.evidence, gathered.unavailable)
        context.experiments = separating(evaluated, checks)
    gathered.run((experiments.PROBE,), context, "batch", session.say)


def _discover(session: Session, context: ModelContext, gathered: Gathered) -> Discovered:
    """Return the VQ layers that only their output shows; none where the file has the layers that are named.

    Raises:
        UserError: if the user names a layer that neither the file nor the model has.
    """
    from vqdoctor.capture.discover import Discovered

    layer = session.settings.layer
    if session.settings.codebook_key is not None or (layer is not None and session.found.views):
        return Discovered()
    session.say("looking for VQ layers that no key shows")
    try:
        found = context.discover()
    except UserError:
        raise
    except Exception as error:  # the layers that are known can be examined all the same
        gathered.crash("discovery", f"{type(error).__name__}: {error}")
        return Discovered()
    left_out = session.model.left_out
    found = found.only(lambda name: not any(lies_in(level, name) for level in left_out))
    if layer is None:
        return found
    if not (named := found.only(lambda name: lies_in(layer, name))).views:
        known = ", ".join(view.name for view in found.views) or "none"
        raise UserError(f"no VQ layer {layer!r} in the file", f"the model's layers are: {known}")
    return named


def _gather_file_of(session: Session, views: tuple[QuantizerView, ...], gathered: Gathered) -> None:
    """Gather the file's evidence of layers that only the model showed."""
    stored = tuple(view for view in views if view.keys["codebook"] in session.checkpoint.tensors)
    own, names = Gathered(), {view.name for view in stored}
    own.run(file.all_probes(), session.file_context(stored), "checkpoint", session.say)
    gathered.evidence += [item for item in own.evidence if item.layer in names]
    gathered.unavailable += [item for item in own.unavailable if item.layer in names]
    gathered.crashed += own.crashed
