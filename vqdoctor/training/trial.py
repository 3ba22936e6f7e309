"""A trial of remedies before the long run: short trainings from one checkpoint, halved until one is left."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from vqdoctor.core.retraining import Arm, Epoch, Figures, Goals
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.remedies import all_remedies
from vqdoctor.training.plan import Plan, PlannedRemedy
from vqdoctor.training.trainer import Trainer

FIRST_SHARE = 10
"""The first round gives every arm a tenth of the epochs; each further round doubles what an arm has had."""
LEAST_EPOCHS = 2
FRESH_ENCODER, FRESH_START = "wake-encoder", "fresh-start"

Train = Callable[[TrainingPlan], Trainer]
Heard = Callable[[str, Epoch, int], None]


@dataclass(frozen=True, kw_only=True)
class Tried:
    """The result of a trial.

    Attributes:
        arms: the arms, the best first.
        plan: the training plan that did best.
        names: the remedies in it.
    """

    arms: tuple[Arm, ...]
    plan: TrainingPlan
    names: tuple[str, ...]

    def planned(self, plan: Plan) -> tuple[PlannedRemedy, ...]:
        """Return the remedies of the winning arm, as the plan has them where it has them."""
        return tuple(_known(plan)[name] for name in self.names)


@dataclass(kw_only=True, eq=False)
class _Contestant:
    name: str
    remedies: tuple[str, ...]
    plan: TrainingPlan
    trainer: Trainer | None = None
    figures: Figures | None = None
    epochs: int = 0


def hold_trial(train: Train, plan: Plan, goals: Goals, heard: Heard) -> Tried:
    """Try the plan, each of its remedies alone, starts from fresh, and a random choice beside them.

    Successive halving (Jamieson and Talwalkar 2016): every arm is trained for a short while, the better
    half goes on for twice as long, until one is left or half of the epochs are spent. Arms are
    ranked on the stop split: by how far the goals are reached, then accuracy, then the task loss.

    Args:
        train: starts the training of a training plan, from the checkpoint.
        plan: the plan.
        goals: the goals of a cure.
        heard: called after every epoch.
    """
    running = _contestants(plan)
    everyone = list(running)
    budget = max(LEAST_EPOCHS, plan.training.epochs // FIRST_SHARE)
    while True:
        for contestant in running:
            _go_on(contestant, train, budget, heard)
        running.sort(key=lambda one: _merit(one, goals), reverse=True)
        if len(running) == 1 or 2 * budget > plan.training.epochs // 2:
            break
        running = running[: math.ceil(len(running) / 2)]
        for contestant in everyone:
            if contestant not in running:
                contestant.trainer = None  # frees its model
        budget *= 2
    best = running[0]
    everyone.sort(key=lambda one: (one.epochs, _merit(one, goals)), reverse=True)
    arms = tuple(
        Arm(
            name=one.name,
            remedies=one.remedies,
            epochs=one.epochs,
            figures=one.figures,
            chosen=one is best,
        )
        for one in (best, *(one for one in everyone if one is not best))
        if one.figures is not None
    )
    return Tried(arms=arms, plan=best.plan, names=best.remedies)


def _contestants(plan: Plan) -> list[_Contestant]:
    """Return the arms: no remedy, each alone, the plan, the plan with other starts, and a random choice."""
    names = tuple(planned.remedy.name for planned in plan.applied)
    known = _known(plan)

    def arm(name: str, remedies: tuple[str, ...]) -> _Contestant:
        training = plan.training_with(known[remedy] for remedy in remedies)
        training = replace(training, epochs=plan.untreated.epochs)  # all arms are given the same
        return _Contestant(name=name, remedies=remedies, plan=training)

    arms = [arm("as it was", ()), arm("the plan", names)]
    arms += [arm(name, (name,)) for name in names if len(names) > 1]
    starts = [start for start in (FRESH_ENCODER, FRESH_START) if start not in names]
    arms += [arm(f"the plan with {start}", (*names, start)) for start in starts]
    if FRESH_ENCODER in names:
        kept = tuple(name for name in names if name != FRESH_ENCODER)
        arms.append(arm("the plan with the encoder kept", kept))
    acting = (planned.remedy for planned in known.values())
    everything = sorted(r.name for r in acting if r.plan is not None and not r.changes_model)
    drawn = random.Random(plan.untreated.seed).sample(everything, k=min(max(len(names), 1), len(everything)))
    arms.append(arm("a random choice", tuple(drawn)))
    return arms


def _known(plan: Plan) -> dict[str, PlannedRemedy]:
    """Return every remedy by its name: as the plan has it, else as it is on all layers."""
    known = {remedy.name: PlannedRemedy(remedy=remedy) for remedy in all_remedies()}
    return known | {planned.remedy.name: planned for planned in plan.remedies}


def _go_on(contestant: _Contestant, train: Train, epochs: int, heard: Heard) -> None:
    """Train an arm until it has had that many epochs."""
    if contestant.trainer is None:
        contestant.trainer = train(contestant.plan)
    trainer = contestant.trainer
    phase = f"trial: {contestant.name}"
    trainer.train_to(epochs, lambda row: heard(phase, row, epochs))
    contestant.epochs = len(trainer.rows)
    contestant.figures = trainer.rows[-1].stop or trainer.figures() if trainer.rows else None


def _merit(contestant: _Contestant, goals: Goals) -> tuple[float, ...]:
    figures = contestant.figures
    if figures is None or not math.isfinite(figures.loss):
        return (-1.0, 0.0, 0.0)
    return (goals.attained(figures), figures.accuracy or 0.0, -figures.loss)
