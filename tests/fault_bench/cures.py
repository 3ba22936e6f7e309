"""Cures: a sick model retrained by the plan, and by remedies drawn at random, and examined again."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import random
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vqdoctor
from fault_bench.data import DIGITS
from fault_bench.host import BenchTask, save
from fault_bench.setup import Setup
from vqdoctor.core.retraining import Figures, Goals, Retraining
from vqdoctor.core.settings import Settings, UserModel
from vqdoctor.engine import examine, exit_code
from vqdoctor.engine.retrain import retrain
from vqdoctor.reference import task as reference
from vqdoctor.reference.recipes import HEALTHY, RECIPES
from vqdoctor.reference.task import DataSet, ReferenceTask
from vqdoctor.reference.train import train
from vqdoctor.remedies import all_remedies

EPOCHS = 50
"""The budget of the plan and of the remedies drawn at random."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One sick model: the reference model's fault, or a training of the fault bench.

    Attributes:
        name: what is wrong with it.
        seed: seed of its training, and of its retraining.
        codes: K of the reference model; None is the recipe's own.
        setup: the fault bench's training; None is the reference model.
        healthy: what differs in the source once it is mended.
        trial: whether the remedies are tried against each other first.
        data_set: the data of the reference model.
    """

    name: str
    seed: int
    codes: int | None = None
    setup: Setup | None = None
    healthy: tuple[tuple[str, Any], ...] = ()
    trial: bool = False
    data_set: DataSet = reference.DIGITS

    @property
    def unsound(self) -> bool:
        """Whether the reference model's layer itself writes wrong codes: its recipe has a sound twin."""
        return f"{self.name}-sound" in RECIPES


@dataclass(frozen=True, kw_only=True)
class Cure:
    """What became of a case; figures are those of the val split.

    Attributes:
        codes: K.
        before: perplexity and accuracy of the sick model.
        perplexity: of the retrained model.
        active: its active codes, as a share of those to expect.
        accuracy: its accuracy.
        ece: its calibration error.
        without_vq: accuracy of the same model without VQ, trained as long.
        ece_without_vq: its calibration error.
        cured: whether all goals are met.
        epochs: how many it took.
        seconds: how long it took, the training without VQ included.
        bare_exit: exit code of the bare examination of the output.
        mended_exit: that of the examination with the mended source.
        at_random: whether five remedies drawn at random meet the same goals; None where none were tried.
        drawn: those remedies.
    """

    codes: int
    before: tuple[float, float]
    perplexity: float
    active: float
    accuracy: float
    ece: float
    without_vq: float
    ece_without_vq: float
    cured: bool
    epochs: int
    seconds: float
    bare_exit: int
    mended_exit: int
    at_random: bool | None
    drawn: tuple[str, ...]

    def line(self, case: Case) -> str:
        what = case.setup.implementation if case.setup is not None else "reference"
        return (
            f"{case.name:<14} {what:<15} K {self.codes:>4} seed {case.seed:>3}  "
            f"{'cured ' if self.cured else 'MISSED'} {self.epochs:>2} epochs {self.seconds:4.0f} s  "
            f"perplexity {self.before[0]:5.1f} → {self.perplexity:5.1f}  active {self.active:4.0%}  "
            f"accuracy {self.before[1]:.3f} → {self.accuracy:.3f} (without VQ {self.without_vq:.3f})  "
            f"ECE {self.ece:.3f}  inspect bare {self.bare_exit}, mended {self.mended_exit}{self._chance}"
        )

    @property
    def _chance(self) -> str:
        if self.at_random is None:
            return ""
        return f"; at random {'cured' if self.at_random else 'missed'} ({', '.join(self.drawn)})"


def cured(cases: Iterable[Case], folder: Path) -> Iterator[tuple[Case, Cure]]:
    """Cure what is not in the folder yet, on every core, in the order given."""
    cases = list(cases)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        yield from zip(cases, pool.map(_cure, [(case, folder) for case in cases]), strict=True)


def _cure(job: tuple[Case, Path]) -> Cure:
    case, folder = job
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    kept = folder / f"{_key(case)}.json"
    if kept.exists():
        found = json.loads(kept.read_text())
        return Cure(**{**found, "before": tuple(found["before"]), "drawn": tuple(found["drawn"])})
    cure = _sick(case, folder)
    kept.write_text(json.dumps(asdict(cure)))
    return cure


def _sick(case: Case, folder: Path) -> Cure:
    sick, output = folder / f"{_key(case)}.pt", folder / f"{_key(case)}.fixed.pt"
    data, user, mended = _brought(case, sick)
    chance: Retraining | None = None
    drawn: tuple[str, ...] = ()
    settings = Settings(seed=case.seed, epochs=EPOCHS, trial=case.trial, overwrite=True, keep_worse=True)
    done = _retrained(sick, output, data, user, settings)
    assert done.before is not None and done.after is not None and done.without_vq is not None
    strict = (mended if user.task is None else user).task.model()
    strict.load_state_dict(torch.load(output, weights_only=True)["model"], strict=True)
    if case.setup is None and not case.unsound:
        names = [r.name for r in all_remedies() if r.plan is not None and not r.changes_model]
        # as many as the recipe's four and the cause's own
        drawn = tuple(random.Random(f"{case.name} {case.seed}").sample(names, k=5))
        goals = Goals(min_accuracy=next(goal.limit for goal in done.goals if goal.name == "accuracy"))
        other = folder / f"{_key(case)}.random.pt"
        chance = _retrained(sick, other, data, user, replace(settings, only=drawn, goals=goals))
    (layer,) = done.after.layers.values()
    return Cure(
        codes=layer.num_codes,
        before=(_perplexity(done.before), done.before.accuracy or 0.0),
        perplexity=layer.perplexity,
        active=layer.active_share,
        accuracy=done.after.accuracy or 0.0,
        ece=1.0 if done.after.ece is None else done.after.ece,
        without_vq=done.without_vq.accuracy or 0.0,
        ece_without_vq=1.0 if done.without_vq.ece is None else done.without_vq.ece,
        cured=done.cured,
        epochs=len(done.epochs),
        seconds=done.seconds,
        bare_exit=int(exit_code(examine(output))),
        mended_exit=int(exit_code(examine(output, user_model=mended))),
        at_random=None if chance is None else chance.cured,
        drawn=drawn,
    )


def _retrained(
    sick: Path, output: Path, data: Path | None, user: UserModel, settings: Settings
) -> Retraining:
    done = retrain(sick, output, data=data, user_model=user, settings=settings).retraining
    assert done is not None
    return done


def _perplexity(figures: Figures) -> float:
    return min(layer.perplexity for layer in figures.layers.values())


def _brought(case: Case, path: Path) -> tuple[Path | None, UserModel, UserModel]:
    """Train the sick model into a file; return its data, its user's task, and that with the source mended."""
    if case.setup is not None:
        save(case.setup, path)
        mended = BenchTask(replace(case.setup, **dict(case.healthy)))
        return None, UserModel(task=BenchTask(case.setup)), UserModel(task=mended)
    path_of_data = DIGITS.with_name(case.data_set.file)
    with np.load(path_of_data) as file:
        data = dict(file)
    recipe, sound = RECIPES[case.name], RECIPES.get(f"{case.name}-sound", HEALTHY)
    recipe = recipe if case.codes is None else replace(recipe, num_codes=case.codes)
    torch.save(dict(train(recipe, data, case.seed, data_set=case.data_set).checkpoint), path)
    config = replace(sound, num_codes=recipe.num_codes).config(case.seed)
    mended_task = ReferenceTask(data["x"], data["y"], data["split"], config, classes=case.data_set.classes)
    return path_of_data, UserModel(), UserModel(task=mended_task)


def _key(case: Case) -> str:
    """Return what names a cure: the case, and the code that trains, retrains and examines."""
    return hashlib.sha256(f"{case!r} {_sources()}".encode()).hexdigest()[:24]


@cache
def _sources() -> str:
    digest = hashlib.sha256(torch.__version__.encode())
    package = Path(vqdoctor.__file__).parent
    rooms = (
        "training",
        "remedies",
        "capture",
        "models",
        "vq",
        "saved",
        "reference",
        "engine",
        "checks",
        "probes",
        "layouts",
        "metrics",
    )
    files = [file for room in rooms for file in sorted((package / room).rglob("*.py"))]
    for file in (*files, *sorted(Path(__file__).parent.glob("*.py"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()
