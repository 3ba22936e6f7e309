"""The examination: a checkpoint, and perhaps a batch, in; a ranked report out."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vqdoctor
from vqdoctor.checkpoint import Checkpoint, open_checkpoint
from vqdoctor.checks import all_checks
from vqdoctor.core.errors import MissingPackageError, UserError
from vqdoctor.core.evidence import (
    DataMatch,
    GradientPath,
    LossBalance,
    TaskGradient,
    TaskMetrics,
    TrainingRecord,
)
from vqdoctor.core.report import CheckpointSummary, LayerSummary, Report
from vqdoctor.engine.batch import Arrays, load_batch
from vqdoctor.engine.gather import Gathered
from vqdoctor.engine.judge import choose, judge
from vqdoctor.engine.rank import plan, rank
from vqdoctor.engine.settings import Settings
from vqdoctor.engine.verdict import verdict
from vqdoctor.layouts import Found, find_quantizers, state_dicts
from vqdoctor.layouts.view import QuantizerView
from vqdoctor.probes import dump, file
from vqdoctor.remedies import all_remedies

if TYPE_CHECKING:
    from vqdoctor.live.task import Task

Progress = Callable[[str], None]

LIVE_KINDS = (GradientPath, TaskGradient, LossBalance, TaskMetrics)


def examine(
    path: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Report:
    """Examine a checkpoint and return the ranked report.

    Args:
        path: the checkpoint file.
        data: a batch file with x (and y) for a task that the checkpoint names, or with z_e and/or
            indices dumped from any framework.
        settings: what the user set.
        progress: told in a few words what is being done.

    Raises:
        UserError: if a file cannot be read, or a setting names nothing.
    """
    settings = settings or Settings()
    say = progress or (lambda _: None)
    checks = choose(all_checks(), settings)
    arrays = None if data is None else load_batch(Path(data))
    say("reading the checkpoint")
    checkpoint = open_checkpoint(path)
    sha256 = checkpoint.verify() if settings.verify else None
    found = find_quantizers(
        checkpoint.tensors,
        layer=settings.layer,
        codebook_key=settings.codebook_key,
        orientation=settings.orientation,
    )
    gathered = Gathered()
    context = file.FileContext(
        checkpoint=checkpoint,
        views=found.views,
        seed=settings.seed,
        histogram=settings.histogram,
        verify=settings.verify,
    )
    gathered.run(file.all_probes(), context, "checkpoint", say)
    _gather_batch(gathered, checkpoint, found, arrays, data, settings, say)
    summary = CheckpointSummary(
        path=os.fspath(path),
        fingerprint=checkpoint.fingerprint(_vq_tensors(checkpoint, found)),
        sha256=sha256,
        container=checkpoint.container,
        bytes=checkpoint.bytes,
    )
    judgement = judge(checks, [v.name for v in found.views], gathered.evidence, gathered.unavailable)
    findings = rank(judgement.findings, checks)
    layers = tuple(_summary(view) for view in found.views)
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
        candidates=() if found.views else found.candidates,
        notes=(*checkpoint.notes, *found.notes),
    )


def _gather_batch(
    gathered: Gathered,
    checkpoint: Checkpoint,
    found: Found,
    arrays: Arrays | None,
    data: str | os.PathLike[str] | None,
    settings: Settings,
    say: Progress,
) -> None:
    if arrays is None or not found.views:
        if found.views:
            gathered.miss((*LIVE_KINDS, DataMatch), "batch", "no data was given", "--data BATCH")
        return
    if any(name.partition("/")[0] in ("z_e", "indices") for name in arrays):
        context = dump.DumpContext(
            views=found.views, arrays=arrays, seed=settings.seed, histogram=settings.histogram
        )
        gathered.run(dump.all_probes(), context, "batch", say)
        gathered.miss(LIVE_KINDS, "batch", "dumped vectors carry no gradient", "--data with x (and y)")
    elif "x" in arrays:
        _gather_live(gathered, checkpoint, found, arrays, settings, say)
    else:
        raise UserError(
            f"{data} holds {', '.join(arrays) or 'nothing'}",
            "--data takes x (and y), or z_e and/or indices",
        )


def _gather_live(
    gathered: Gathered,
    checkpoint: Checkpoint,
    found: Found,
    arrays: Arrays,
    settings: Settings,
    say: Progress,
) -> None:
    record = next((e for e in gathered.evidence if isinstance(e, TrainingRecord)), None)
    name = record.task if record else None
    if name is None:
        raise UserError(
            "the batch has x, but the checkpoint does not say which built-in task it belongs to",
            "dump z_e or the indices of your VQ layer into the batch instead",
        )
    if importlib.util.find_spec("torch") is None:
        raise MissingPackageError("torch", "examining a model with x", "torch")
    from vqdoctor.live.device import resolve
    from vqdoctor.live.load import load_state
    from vqdoctor.live.untouched import untouched
    from vqdoctor.probes import model as model_probes

    say(f"building {name}")
    task = _task(name, checkpoint, arrays)
    state, keys = _state_of(checkpoint, found)
    model = task.model()
    loaded = load_state(model, state)
    context = model_probes.ModelContext(
        model=model,
        task=task,
        views=found.views,
        codebook_names=keys,
        record=record,
        arrays=arrays,
        device=resolve(settings.device),
        seed=settings.seed,
        histogram=settings.histogram,
        progress=say,
    )
    with untouched(model, settings.seed):
        try:
            _ = context.layers
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            shape = list(arrays["x"].shape)
            raise UserError(f"the model fails on x {shape}: {reason}", "check the batch") from error
        gathered.run(model_probes.all_probes(), context, "batch", say)
    if loaded.missing:
        gathered.miss((TaskMetrics,), "batch", f"not in the file: {', '.join(loaded.missing[:5])}", "")


def _task(name: str, checkpoint: Checkpoint, arrays: Arrays) -> Task:
    """Return the built-in task of that name; a name from a file never becomes an import."""
    from vqdoctor.reference import BUILTIN_TASKS

    if name not in BUILTIN_TASKS:
        raise UserError(
            f"the checkpoint names the task {name!r}, which is not built in",
            f"the built-in tasks are {', '.join(BUILTIN_TASKS)}",
        )
    config = checkpoint.tree.get("config") if isinstance(checkpoint.tree, dict) else None
    return BUILTIN_TASKS[name](config if isinstance(config, dict) else {}, arrays)


def _state_of(checkpoint: Checkpoint, found: Found) -> tuple[Mapping[str, Any], dict[str, str]]:
    """Return the state dict that holds the VQ layers, and each layer's codebook name in it."""
    wanted = {view.name: view.keys["codebook"] for view in found.views}
    for state in state_dicts(checkpoint.tensors):
        clean = {raw: name for name, raw in state.raw.items()}
        if set(wanted.values()) <= clean.keys():
            return state.entries, {layer: clean[raw] for layer, raw in wanted.items()}
    raise UserError("the VQ layers are not all in one state dict", "--layer picks one")


def _vq_tensors(checkpoint: Checkpoint, found: Found) -> list[Any]:
    keys = dict.fromkeys(key for view in found.views for key in view.keys.values())
    return [checkpoint.tensors[key] for key in keys if key in checkpoint.tensors]


def _summary(view: QuantizerView) -> LayerSummary:
    return LayerSummary(
        name=view.name,
        layout=view.layout,
        layout_confidence=view.confidence.label,
        num_codes=view.num_codes,
        dim=view.dim,
        keys=dict(view.keys),
    )
