"""Repairing a file without training: the remedies that it can take, in the plan's order."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import vqdoctor
from vqdoctor.checkpoint import check_output, write_checkpoint, write_folder
from vqdoctor.checks import all_checks
from vqdoctor.core.errors import UserError, suggestion
from vqdoctor.core.evidence import TaskMetrics, Usage
from vqdoctor.core.files import ALL_SUFFIXES
from vqdoctor.core.finding import Finding
from vqdoctor.core.levels import Severity
from vqdoctor.core.report import DRY_RUN, NOT_WRITTEN, Repair, Report
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine.examine import examine, examine_session
from vqdoctor.engine.layers import Pending, arrays_of, in_order, residuals
from vqdoctor.engine.session import Progress, Session
from vqdoctor.layouts.layer_arrays import LayerArrays
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.metrics.geometry import Rows
from vqdoctor.remedies import Remedy, all_remedies, with_advice
from vqdoctor.saved.training import ESTIMATED_COUNTS

FIXED = ".fixed"
"""The part before the suffix of an output that the user does not name."""
_USAGE = ("used", "active", "perplexity")


def default_output(path: Path) -> Path:
    """Return the output of a fix that names none: beside the input.

    >>> default_output(Path("runs/model.ckpt")).as_posix()
    'runs/model.fixed.ckpt'
    """
    return path.with_name(f"{path.stem}{FIXED}{path.suffix}")


def require_remedies(names: Collection[str]) -> None:
    """Make sure that these are names of remedies.

    Raises:
        UserError: if one is not; the closest is named.
    """
    known = [remedy.name for remedy in with_advice(all_checks())]
    for name in names:
        if name not in known:
            raise UserError(f"there is no remedy {name!r}", suggestion(name, known))


def repair_file(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    data: object = None,
    user_model: UserModel | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Report:
    """Apply the remedies that need no training, write the result, and return the output's report.

    Unmoved codes keep their values. With moved codes their EMA sums and counts are written, the flag of the
    initialisation is set and the optimizer's moments of these rows are cleared. A dry run, and a file that
    needs no remedy, write no file, and the report is the input's.

    Args:
        path: the checkpoint; it is only read.
        output: the file to write; None is `default_output`.
        data: a batch file, as for `examine`; its z_e say where codes are needed.
        user_model: the user's model or task.
        settings: the user's settings, of the examinations before and after too.
        progress: gets each step in a few words.

    Raises:
        UserError: if a file cannot be read or written, a remedy is unknown, or the user's code fails.
    """
    settings = settings or Settings()
    require_remedies((*settings.only, *settings.skip))
    with Session.open(
        path, data=data, user_model=user_model, settings=settings, progress=progress
    ) as session:
        before, notes, written = _repair_session(session, output)
    if written is None:
        return before
    after = examine(written, data=data, user_model=user_model, settings=settings, progress=progress)
    measured = tuple(_with_usage(repair, before, after) for repair in before.repairs)
    return replace(after, repairs=measured, notes=(*after.notes, *notes))


def _repair_session(
    session: Session, output: str | os.PathLike[str] | None
) -> tuple[Report, list[str], Path | None]:
    """Examine an opened checkpoint, apply the remedies that need no training, and write the output.

    Returns the input's report with the repairs, the notes on them, and the output. Where no file was written,
    the output is None, and the report has the notes.

    Raises:
        UserError: if the output cannot be written, or the user's code fails.
    """
    checkpoint, settings = session.checkpoint, session.settings
    target = Path(output) if output is not None else default_output(checkpoint.path)
    if not settings.dry_run:
        check_output(checkpoint, target, overwrite=settings.overwrite)
    # The full counts show which codes are needed.
    session = replace(session, settings=replace(settings, histogram=True))
    examination = examine_session(session)
    before = examination.report
    pending = Pending(saved=session.saved, views=session.found.views)
    repairs = _repairs(before, pending, examination.vectors, settings)
    if not settings.histogram:
        bare = (e.replace(histogram=()) if isinstance(e, Usage) else e for e in before.evidence)
        before = replace(before, evidence=tuple(bare))
    before = replace(before, repairs=repairs)
    notes = [
        f"the optimizer's moments of {name} were not found for certain; they stay" for name in pending.unclear
    ]
    if settings.dry_run or not pending.values:
        notes.append(DRY_RUN if settings.dry_run else NOT_WRITTEN)
        report = replace(before, notes=(*before.notes, *notes))
        return report, notes, None
    session.say(f"writing {target.name}")
    note = {
        "tool": f"vqdoctor {vqdoctor.__version__}",
        "seed": settings.seed,
        "repairs": [
            {"remedy": r.remedy, "layer": r.layer, "changes": {c.key: c.what for c in r.changes}}
            for r in repairs
            if r.status == "applied"
        ],
        ESTIMATED_COUNTS: sorted({*session.saved.estimated_counts, *pending.estimated}),
    }
    if session.path is not None and Path(session.path).is_dir() and not _is_file_name(target):
        write_folder(checkpoint, target, pending.values, note=note)
    else:
        write_checkpoint(checkpoint, target, pending.values, note=note, overwrite=settings.overwrite)
    notes.append(f"repaired from {session.path}, which is as it was")
    return before, notes, target


def _is_file_name(target: Path) -> bool:
    return target.name.lower().endswith((*ALL_SUFFIXES, ".bin"))


def _repairs(
    before: Report, pending: Pending, vectors: Mapping[str, Rows], settings: Settings
) -> tuple[Repair, ...]:
    """Apply the remedies layer by layer, each layer's in stage order, and return the result of each."""
    found: list[Repair] = []
    todo: dict[str, list[Remedy]] = {}
    for remedy, layers in _chosen(before, pending.views, settings):
        if refused := _refused(remedy, settings):
            found.append(Repair(remedy=remedy.name, status="skipped", reason=refused))
            continue
        for name in layers:
            todo.setdefault(name, []).append(remedy)
    done: dict[str, tuple[LayerArrays, Rows]] = {}
    for number, (view, level_before) in enumerate(in_order(pending.views)):
        z_e = vectors.get(view.name)
        if level_before is not None and level_before.name in done:
            z_e = residuals(*done[level_before.name], z_e)
        layer = arrays_of(view, before, z_e, np.random.default_rng((settings.seed, number)))
        done[view.name] = layer, view.codebook
        found += [_apply(remedy, view, layer, pending) for remedy in todo.get(view.name, ())]
    order = [remedy.name for remedy in with_advice(all_checks())]
    return tuple(sorted(found, key=lambda repair: order.index(repair.remedy)))


def _chosen(
    before: Report, views: Sequence[QuantizerView], settings: Settings
) -> Iterator[tuple[Remedy, tuple[str, ...]]]:
    """Yield the remedies that are asked for, in stage order, with the layers that they are for."""
    everywhere = tuple(view.name for view in views)
    findings = list(_repairable(before))
    for remedy in with_advice(all_checks()):
        layers = [f.layer for f in findings if remedy.name in f.remedies]
        if settings.only and remedy.name in settings.only:
            yield remedy, everywhere
        elif not settings.only and layers:
            yield remedy, everywhere if None in layers else tuple(n for n in everywhere if n in layers)


def _repairable(before: Report) -> Iterator[Finding]:
    """Yield the causes above a note, and the symptoms of each cause that a file can be rid of.

    Where the cause stays, in the source or in the training, its symptoms would only come back.
    """
    in_a_file = {remedy.name for remedy in all_remedies() if remedy.apply is not None}
    for root in before.roots():
        found = (root, *before.symptoms(root)) if in_a_file & set(root.remedies) else (root,)
        yield from (finding for finding in found if finding.severity > Severity.NOTE)


def _refused(remedy: Remedy, settings: Settings) -> str:
    if remedy.name in settings.skip:
        return "left out, as asked"
    if remedy.apply is None:
        asked = f" --only {remedy.name}" if remedy.changes_model else ""
        training = f"; --retrain{asked} applies it" if remedy.plan is not None else ""
        return f"a file alone cannot take it{training}: {remedy.how}"
    if remedy.changes_weights and not settings.unsafe:
        return "it changes trained weights: add --unsafe-fixes, or --retrain"
    return ""


def _apply(remedy: Remedy, view: QuantizerView, layer: LayerArrays, pending: Pending) -> Repair:
    """Apply a remedy to a layer's arrays, and take over the rows that it wrote."""
    assert remedy.apply is not None
    result = Repair(remedy=remedy.name, status="skipped", layer=view.name)
    if view.frozen:
        return replace(result, reason="its codes are rightly never trained")
    if not view.writable:
        return replace(result, reason="its codes are computed from other tensors")
    figures, arrays = _figures(layer), (layer.codebook, layer.counts, layer.sums)
    copies = [None if array is None else array.copy() for array in arrays]
    if reason := remedy.apply(layer):
        return replace(result, status="no-effect", reason=reason)
    moved, recounted, resummed = (
        np.zeros(layer.num_codes, dtype=bool)
        if old is None or new is None
        else (old != new).reshape(layer.num_codes, -1).any(axis=1)
        for old, new in zip(copies, (layer.codebook, layer.counts, layer.sums), strict=True)
    )
    changes, after = pending.take(view, layer, moved, recounted | resummed), _figures(layer)
    return replace(
        result,
        status="applied",
        before={name: old for name, old in figures.items() if old != after.get(name)},
        after={name: new for name, new in after.items() if name in figures and new != figures[name]},
        changes=tuple(changes),
    )


def _figures(layer: LayerArrays) -> dict[str, float]:
    """Return the figures that remedies change; dead codes only where they can be counted after a change."""
    found = {"copies": float(layer.copies().sum()), "non_finite": float((~layer.finite).sum())}
    dead, off = layer.dead(), layer.disagreeing()
    if dead is not None and (layer.z_e is not None or not layer.moved.any()):
        found["dead"] = float(dead.sum())
    if off is not None:
        found["off_their_sums"] = float(off.sum())
    return found


def _with_usage(repair: Repair, before: Report, after: Report) -> Repair:
    """Add the measurements of the two files: the layer's usage from one source, and the model's accuracy."""
    if repair.status != "applied" or repair.layer is None:
        return repair
    old, new = before.find(Usage, repair.layer), after.find(Usage, repair.layer)
    if old is None or new is None or old.source != new.source:
        return repair
    both = [{name: float(getattr(usage, name)) for name in _USAGE} for usage in (old, new)]
    for figures, report in zip(both, (before, after), strict=True):
        metrics = report.find(TaskMetrics)
        told = {} if metrics is None else {name: getattr(metrics, name) for name in ("accuracy", "ece")}
        figures.update({name: float(value) for name, value in told.items() if value is not None})
    return replace(repair, before={**repair.before, **both[0]}, after={**repair.after, **both[1]})
