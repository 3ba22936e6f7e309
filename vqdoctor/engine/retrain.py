"""Retraining a sick model: examined, the plan trained to its goals, written, and measured again.

This module needs torch; it is imported where a model is retrained.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

import vqdoctor
from vqdoctor.checkpoint import check_output, write_checkpoint
from vqdoctor.checkpoint.files import printable
from vqdoctor.core.codec import encode
from vqdoctor.core.evidence import TrainForward
from vqdoctor.core.launcher import Launched
from vqdoctor.core.report import DRY_RUN, Report
from vqdoctor.core.retraining import Retraining, SourceChange
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine.examine import examine, examine_session
from vqdoctor.engine.plan import joining, make_plan
from vqdoctor.engine.retraining_notes import notes_of
from vqdoctor.engine.session import Progress, Session
from vqdoctor.engine.weights import weights_of
from vqdoctor.models.untouched import same_randomness
from vqdoctor.saved.record import RETRAINED
from vqdoctor.training.clock import Clock
from vqdoctor.training.moments import new_moments
from vqdoctor.training.optimizer import SavedRecipe
from vqdoctor.training.outcome import Outcome
from vqdoctor.training.plan import Plan
from vqdoctor.training.ranks import OtherHasTold, Ranks, joined
from vqdoctor.training.rehearsal import epoch_seconds, step_seconds
from vqdoctor.training.resume import has_written, state_path
from vqdoctor.training.run import Run, Watcher
from vqdoctor.training.trainable import Trainable

__all__ = ["OtherHasTold", "Watcher", "plan_for", "rehearse", "retrain", "retrain_session", "trainable"]


def retrain(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    data: object = None,
    user_model: UserModel | None = None,
    settings: Settings | None = None,
    watcher: Watcher | None = None,
    launched: Launched | None = None,
) -> Report:
    """Retrain a checkpoint's model with the remedies of its report, write it, and return the output's report.

    The state of an unfinished run is kept beside the output after every epoch; Ctrl-C and SIGTERM end the
    run with the best of the finished epochs. Where the retrained model does its task worse than the
    checkpoint, the state stays and no output is written; where no training can help, none begins, or none
    with VQ. The report is then the checkpoint's own.

    Args:
        path: the checkpoint; it is only read.
        output: the file to write; its container, names and types are the input's.
        data: a batch file with x (and y).
        user_model: the user's model or task; without it the checkpoint must name a built-in task.
        settings: the user's settings of the examinations before and after.
        watcher: gets each step and each epoch.
        launched: the processes that torch's launcher started, all of which call this; only rank zero's report
            is that of the output.

    Raises:
        OtherHasTold: if another process has said already why the training ends.
        UserError: if a file cannot be read or written, the user's code fails, there is nothing to retrain, or
            the loss does not stay finite.
    """
    started = time.monotonic()
    say = watcher.say if watcher is not None else None
    with (
        joined(launched or Launched()) as ranks,
        Session.open(
            path, data=data, user_model=user_model, settings=settings, progress=say, training=True
        ) as session,
    ):
        before, outcome = retrain_session(session, Path(output), watcher, started, ranks)
        data, notes = session.data, session.notes
    if not ranks.first:
        return before
    if isinstance(outcome, Retraining):
        outcome = replace(outcome, seconds=time.monotonic() - started)
        return replace(before, retraining=outcome, notes=(*before.notes, *notes))
    after, done = before, outcome.retraining
    if done.written:
        after = examine(output, data=data, user_model=user_model, settings=settings, progress=say)
        if not done.interrupted:
            state_path(Path(output)).unlink(missing_ok=True)
    source = outcome.left_in_source({finding.code for finding in after.findings})
    seconds = time.monotonic() - started
    more = notes_of(outcome, session.saved)
    return replace(
        after,
        retraining=replace(done, source=tuple(source) if done.written else (), seconds=seconds),
        repairs=tuple(outcome.repairs()),
        notes=(*after.notes, *notes, *more),
    )


def rehearse(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    data: object = None,
    user_model: UserModel | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Report:
    """Return the report of a checkpoint with the plan that `retrain` would train, and how long that takes.

    Nothing is written. The arguments are those of `retrain`; `progress` gets each step in a few words.

    Raises:
        UserError: as for `retrain`, before its first epoch.
    """
    with Session.open(
        path, data=data, user_model=user_model, settings=settings, progress=progress, training=True
    ) as session:
        target = check_output(session.checkpoint, Path(output), overwrite=True)
        taken = target.exists() and not session.settings.overwrite
        begun = time.monotonic()
        report = examine_session(session).report
        examined = time.monotonic() - begun
        with same_randomness(session.settings.seed):
            found = trainable(session)
            settings = in_steps(found, session.settings)
            plan = plan_for(report, found, settings)
            if (needless := untrained(plan, found, settings)) is not None:
                return replace(report, retraining=needless, notes=(*report.notes, DRY_RUN))
            session.say("timing a batch")
            batches, seconds = epoch_seconds(found)
            twice = found.needs_without_vq(session.settings.goals)
    training = plan.training
    steps = training.steps or batches
    passes = training.epochs * steps / max(batches, 1) * (1 + twice)
    minutes = (passes * seconds + 2 * examined) / 60  # the input is examined, and the output
    also = "; as many epochs without VQ come first, and are counted" if twice else ""
    duration = (
        f"--retrain would train at most {training.epochs} epochs of {steps:,} batches, about "
        f"{max(minutes, 0.1):,.1f} minutes on {found.context.device.type}{also}"
    )
    exists = f"{printable(output)} exists: without --dry-run add --overwrite, or name another file"
    notes = (*report.notes, duration, *([exists] if taken else []), DRY_RUN)
    return replace(report, plan=plan.steps, repairs=plan.intended, notes=notes)


def retrain_session(
    session: Session,
    output: Path,
    watcher: Watcher | None = None,
    begun: float | None = None,
    ranks: Ranks | None = None,
) -> tuple[Report, Outcome | Retraining]:
    """Examine an opened checkpoint, train the plan to its goals, and write the output.

    A budget in minutes holds for all of it, with the examination of the output: that one is taken to last
    as long as the first.

    Args:
        session: the checkpoint, its data and its model.
        output: the file to write.
        watcher: gets each step and each epoch.
        begun: when the run began, as `time.monotonic` tells it; None is now.
        ranks: the processes that train together; None is this one alone.

    Returns:
        The report of the checkpoint, and the result; a bare `Retraining` if no training began.

    Raises:
        UserError: as for `retrain`.
    """
    settings = session.settings
    begun = time.monotonic() if begun is None else begun
    check_output(session.checkpoint, output, overwrite=may_overwrite(output, settings))
    before = examine_session(session).report
    examined = time.monotonic() - begun
    ranks = ranks or Ranks()
    clock = Clock.within(settings.minutes, begun, examined, ranks.agreed)
    with same_randomness(settings.seed), sigterm_as_interrupt():
        found = replace(trainable(session), ranks=ranks)
        settings = in_steps(found, settings, 2 * examined)
        plan = plan_for(before, found, settings)
        if (needless := untrained(plan, found, settings)) is not None:
            return before, needless
        run = Run(
            trainable=found,
            plan=plan,
            fingerprint=f"{session.checkpoint.fingerprint(())} {decisive(settings, session.user_model)}",
            output=output,
            goals=settings.goals,
            trial=settings.trial,
            resume=settings.resume,
            keep_worse=settings.keep_worse,
            timed=settings.minutes is not None,
            clock=clock,
        )
        if watcher is not None:
            run.heard = watcher.epoch
        outcome = run.complete()
    if isinstance(outcome, Retraining) or not (outcome.retraining.written and ranks.first):
        return before, outcome
    session.say(f"writing {output}")
    saved, retraining = session.saved, outcome.retraining
    changes = outcome.tensors(session.model.raw_keys, session.checkpoint.tensors)
    changes.update(new_moments(saved.optimizers, outcome.trainer.optimizers.all))
    decays = (found.decay for found in before.evidence if isinstance(found, TrainForward))
    note = {
        "vqdoctor": vqdoctor.__version__,
        "command": "fix --retrain",
        "training_plan": encode(retraining.plan),
        RETRAINED: outcome.record(saved.record, max(filter(None, decays), default=None)),
        "remedies": [planned.remedy.name for planned in outcome.applied],
        "cured": retraining.cured,
    }
    may = may_overwrite(output, settings)
    write_checkpoint(session.checkpoint, output, changes, note=note, overwrite=may)
    run.note_output()
    return before, outcome


def may_overwrite(output: Path, settings: Settings) -> bool:
    """Whether a file at the output may be written over: as asked, or as the run's own that is resumed."""
    return settings.overwrite or (settings.resume and has_written(output))


def decisive(settings: Settings, user_model: UserModel) -> list[object]:
    """Return the options that decide about the figures of a training and are part of no plan."""
    losses = [user_model.vq_loss, user_model.task_loss, settings.mask, "shuffle" in settings.skip]
    return [*losses, settings.layer, settings.codebook_key, settings.orientation, settings.batches]


def in_steps(found: Trainable, settings: Settings, examined: float = 0.0) -> Settings:
    """Return the settings with a budget in minutes as one in steps, by a timed batch.

    The training without VQ, where there is one, takes its half.

    Args:
        found: the model.
        settings: the user's settings.
        examined: seconds of the minutes that are spent on examinations.
    """
    if settings.minutes is None:
        return settings
    seconds = found.ranks.agreed(step_seconds(found)) * (1 + found.needs_without_vq(settings.goals))
    within = found.ranks.agreed(max(1, int((60 * settings.minutes - examined) / seconds)))
    return replace(settings, steps=within if settings.steps is None else min(within, settings.steps))


def untrained(plan: Plan, found: Trainable, settings: Settings) -> Retraining | None:
    """Return why no training begins; None where one is worth its while.

    A cause is in the source where no training reaches it, or nothing is left to treat: no finding asks
    for a remedy that acts, and all goals hold of a model that has learned its task.
    """
    blocking, before = plan.blocking, found.before
    if plan.applied and not blocking:
        return None
    done = Retraining(
        plan=plan.training,
        epochs=(),
        before=before,
        after=None,
        goals=() if before is None else settings.goals.compare(before),
        source=tuple(
            SourceChange(
                why=f"{', '.join(one.because)} on {', '.join(one.layers)}, which no retraining reaches "
                f"(--skip {one.remedy.name} trains all the same): {one.remedy.how}",
                code=one.remedy.code,
                codes=one.because,
            )
            for one in blocking
        ),
        ended="source" if blocking else "nothing",
        written=False,
    )
    return done if blocking or (before is not None and settings.goals.hold(before)) else None


def trainable(session: Session) -> Trainable:
    """Return a session's model, of which fresh copies can be trained.

    A file whose keys show no VQ layer may still have some: these are looked for in the model at work, as the
    examination does, first those with a codebook, then those without one (FSQ, LFQ).
    """
    context = session.model_context(training=True)
    if not context.mapped:
        with same_randomness(session.settings.seed):
            discovered = context.discover()
        if discovered.explicit:
            context = context.also(discovered)
        elif discovered.implicit:
            context = context.others(discovered)
    return Trainable(
        examined=session.model,
        context=context,
        recipe=SavedRecipe.of(session.saved, session.found.views),
        say=session.say,
        shuffles="shuffle" not in session.settings.skip,
    )


def plan_for(report: Report, found: Trainable, settings: Settings) -> Plan:
    """Return the plan of an examination, by the user's settings and for the layers that can be watched."""
    return make_plan(
        report.findings,
        tuple(found.context.mapped),
        settings,
        seed=settings.seed,
        trained_vq_weight=found.context.vq_weight,
        summaries=report.layers,
        weights=weights_of(report),
        unwritable=found.unwritable,
        by_logits=[name for name, layer in found.context.mapped.items() if layer.view.lookup == "logits"],
        unable=found.unable(settings),
        unmet=found.before is not None and not settings.goals.hold(found.before),
        joins=joining(report, settings.goals.max_loss),
    )


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
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
