"""A study cell by cell: each training is kept when it is done, to be taken up, shared out and joined."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import platform
import signal
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

import vqdoctor
from vqdoctor.core.ablation import Cost, Run, Study
from vqdoctor.core.codec import encode
from vqdoctor.core.errors import UserError
from vqdoctor.core.settings import Settings
from vqdoctor.engine.ablate.cells import Training, lay_out, lay_out_stages
from vqdoctor.engine.ablate.kept import Kept
from vqdoctor.engine.ablate.latency import time_batches
from vqdoctor.engine.ablate.one import THREADS, Bench
from vqdoctor.engine.ablate.subject import STAGES, Subject
from vqdoctor.engine.examine import examine_session
from vqdoctor.engine.plan import EPOCHS, make_plan
from vqdoctor.engine.retrain import decisive, plan_for, sigterm_as_interrupt, trainable
from vqdoctor.models.untouched import same_randomness

NO_VAL = "The task serves no val split: every figure is of the data that the models are trained on."


class Watcher(Protocol):
    """Follows a study."""

    def say(self, doing: str) -> None:
        """Report the work at hand, in a few words."""

    def done(self, run: Run, number: int, of: int, seconds_left: float) -> None:
        """Report a training that is done, and how long the rest will take."""


def ablate(subject: Subject, folder: Path, watcher: Watcher) -> Study:
    """Train and measure every cell that the folder does not hold yet, and return the study.

    Ctrl-C and SIGTERM end it with what is done.

    Args:
        subject: the model and its data.
        folder: keeps each training as it is done; a study of the same identity is taken up there.
        watcher: shows the progress.

    Raises:
        UserError: if the folder holds another study, the subject cannot be opened, or nothing can be written.
    """
    with sigterm_as_interrupt():
        study, trainings = _laid_out(subject, watcher)
        kept = Kept.open(folder, study)
        interrupted = False
        try:
            _train(subject, trainings, kept, watcher)
            _time(subject, trainings, kept, watcher)
        except KeyboardInterrupt:
            interrupted = True
    return replace(kept.study, interrupted=interrupted)


def _laid_out(subject: Subject, watcher: Watcher) -> tuple[Study, Mapping[str, Training]]:
    """Examine the subject, and return its study without results, and its trainings."""
    settings = subject.settings
    epochs = EPOCHS if settings.epochs is None else settings.epochs
    bounded = replace(settings, epochs=epochs)
    with subject.open(say=watcher.say) as session:
        with same_randomness(settings.seed):
            found = trainable(session)
            if subject.path is None:
                weight = found.context.vq_weight
                mapped, unable = tuple(found.context.mapped), found.unable(bounded)
                plan = make_plan((), mapped, bounded, trained_vq_weight=weight, unable=unable)
            else:
                plan = plan_for(examine_session(session).report, found, bounded)
            device = found.context.device
            task = found.context.task
            notes = () if next(iter(task.batches("val")), None) is not None else (NO_VAL,)
        if not found.context.mapped:
            raise UserError("no VQ layer can be watched in the model", "it needs a module from z_e to z_q")
    if settings.stages:
        cells, trainings = lay_out_stages(plan, STAGES, epochs)
    else:
        cells, trainings = lay_out(plan, subject.models, epochs)
    if not found.runs_without_vq:
        cells = tuple(cell for cell in cells if not cell.without_vq)
    seeds = tuple(range(settings.seed, settings.seed + settings.seeds))
    versions = {
        "vqdoctor": vqdoctor.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    decides = {
        "subject": subject.fingerprint,
        "data": found.splits.fingerprint,
        "options": decisive(settings, subject.user_model),
        "trainings": {name: [t.model, t.without_vq, encode(t.plan)] for name, t in trainings.items()},
        "seeds": seeds,
        "device": device.type,
        "versions": {name: versions[name] for name in ("vqdoctor", "torch")},
    }
    study = Study(
        versions=versions,
        subject=subject.told,
        identity=hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest(),
        epochs=epochs,
        seeds=seeds,
        threads=THREADS,
        device=device.type,
        vq_weight=plan.untreated.vq_weight,
        cells=cells,
        notes=notes,
    )
    return study, trainings


def _mine(study: Study, settings: Settings) -> list[tuple[str, int]]:
    """Return the trainings of this shard, in order."""
    every = study.trainings
    if settings.shard is None:
        return list(every)
    number, of = settings.shard
    return [training for at, training in enumerate(every) if at % of == number - 1]


def _train(subject: Subject, trainings: Mapping[str, Training], kept: Kept, watcher: Watcher) -> None:
    """Do the trainings that are left, several at a time, and keep each as it is done."""
    mine = _mine(kept.study, subject.settings)
    left = [(run, seed) for run, seed in mine if not kept.has(run, seed)]
    jobs = min(subject.settings.jobs, len(left), os.cpu_count() or 1)  # more would only wait
    started = time.monotonic()
    if not left:
        return
    with contextlib.closing(_results(subject, trainings, left, jobs)) as results:
        for number, (run, cost) in enumerate(results, start=1):
            kept.add(run, cost)
            rest = (time.monotonic() - started) / number * (len(left) - number)
            watcher.done(run, len(mine) - len(left) + number, len(mine), rest)


def _results(
    subject: Subject, trainings: Mapping[str, Training], left: Sequence[tuple[str, int]], jobs: int
) -> Generator[tuple[Run, Cost]]:
    """Yield the trainings as they are done, each in one of as many processes.

    Raises:
        UserError: if a process dies.
    """
    context = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, context, _begin, (subject, trainings, os.getpid()))
    try:
        for future in as_completed([pool.submit(_work, run, seed) for run, seed in left]):
            yield future.result()
    except BrokenProcessPool as error:
        what = "a process of the study died, of too little memory perhaps"
        raise UserError(what, "the same command goes on; --jobs 1 takes less memory") from error
    finally:
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        pool.shutdown(cancel_futures=True)


_BENCH: list[Bench] = []


def _begin(subject: Subject, trainings: Mapping[str, Training], parent: int) -> None:
    """Prepare a process: the parent alone hears Ctrl-C, and the process ends when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def outlive_nobody() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=outlive_nobody, daemon=True).start()
    _BENCH.append(Bench(subject, trainings))


def _work(run: str, seed: int) -> tuple[Run, Cost]:
    return _BENCH[0].train(run, seed)


def _time(subject: Subject, trainings: Mapping[str, Training], kept: Kept, watcher: Watcher) -> None:
    """Time the models whose trainings are done, one after the other."""
    done = dict.fromkeys(run.run for run in kept.study.runs if run.figures is not None)
    known = {latency.run for latency in kept.study.latencies}
    threads, bench = torch.get_num_threads(), Bench(subject, trainings)
    try:
        for run in done:
            if run not in known:
                watcher.say(f"timing {run}")
                kept.add_latency(time_batches(bench.trainable(run), run, trainings[run]))
    finally:
        bench.close()
        torch.set_num_threads(threads)
