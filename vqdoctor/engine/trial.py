"""A trial of remedies before the long run: short trainings from one checkpoint, halved until one is left."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from vqdoctor.core.retraining import Arm, Epoch, Figures, Goals
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.engine.prescribe import FRESH_ENCODER, Prescribed, Prescription
from vqdoctor.remedies import Remedy, all_remedies
from vqdoctor.training.trainer import Trainer

FIRST_SHARE = 10
"""The first round gives every arm a tenth of the epochs; each further round doubles what an arm has had."""
LEAST_EPOCHS = 2
FRESH_START = "fresh-start"

Train = Callable[[TrainingPlan], Trainer]
Heard = Callable[[str, Epoch, int], None]


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What a trial found.

    Attributes:
        arms: what was tried, the best first.
        plan: the training plan that did best.
        names: the remedies in it.
    """

    arms: tuple[Arm, ...]
    plan: TrainingPlan
    names: tuple[str, ...]

    def prescribed(self, prescription: Prescription) -> tuple[Prescribed, ...]:
        """Return the remedies of the winning arm, as the plan has them where it has them."""
        known = {prescribed.remedy.name: prescribed for prescribed in prescription.remedies}
        remedies = {remedy.name: remedy for remedy in all_remedies()}
        return tuple(known.get(name, Prescribed(remedy=remedies[name])) for name in self.names)


@dataclass(kw_only=True, eq=False)
class _Contestant:
    name: str
    remedies: tuple[str, ...]
    plan: TrainingPlan
    trainer: Trainer | None = None
    figures: Figures | None = None
    epochs: int = 0


def hold_trial(
    train: Callable[[TrainingPlan], Trainer], prescription: Prescription, goals: Goals, heard: Heard
) -> Tried:
    """Try the plan, each of its remedies alone, starts from fresh, and a random choice beside them.

    Successive halving (Jamieson and Talwalkar 2016): every arm is trained for a short while, the better
    half goes on for twice as long, until one is left or half of the epochs are spent. What ranks is
    measured on the stop split: how far the goals are reached, then accuracy, then the task loss.

    Args:
        train: starts the training of a training plan, from the checkpoint.
        prescription: the plan.
        goals: what counts as cured.
        heard: told of every epoch.
    """
    running = _contestants(prescription)
    everyone = list(running)
    budget = max(LEAST_EPOCHS, prescription.plan.epochs // FIRST_SHARE)
    while True:
        for contestant in running:
            _go_on(contestant, train, budget, heard)
        running.sort(key=lambda one: _merit(one, goals), reverse=True)
        if len(running) == 1 or 2 * budget > prescription.plan.epochs // 2:
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


def _contestants(prescription: Prescription) -> list[_Contestant]:
    """Return the arms: no remedy, each alone, the plan, the plan with other starts, and a random choice."""
    planned = prescription.applied
    plan = prescription.plan
    plain = prescription.untreated
    names = tuple(prescribed.remedy.name for prescribed in planned)
    known = {remedy.name: remedy for remedy in all_remedies()}
    layers = tuple(dict.fromkeys(layer for p in planned for layer in p.layers))
    options = PlanOptions(layers=layers, vq_weight=plan.vq_weight, warm_up_epochs=plan.warm_up_epochs or 10)

    def arm(name: str, remedies: tuple[str, ...]) -> _Contestant:
        chosen = [p for p in planned if p.remedy.name in remedies]
        extra = [known[n] for n in remedies if n not in names]
        return _Contestant(name=name, remedies=remedies, plan=_course(plain, chosen, extra, options))

    arms = [arm("as it was", ()), arm("the plan", names)]
    arms += [arm(name, (name,)) for name in names if len(names) > 1]
    starts = [start for start in (FRESH_ENCODER, FRESH_START) if start not in names]
    arms += [arm(f"the plan with {start}", (*names, start)) for start in starts]
    if FRESH_ENCODER in names:
        kept = tuple(name for name in names if name != FRESH_ENCODER)
        arms.append(arm("the plan with the encoder kept", kept))
    everything = sorted(r.name for r in known.values() if r.plan is not None and not r.changes_model)
    drawn = random.Random(plan.seed).sample(everything, k=min(max(len(names), 1), len(everything)))
    arms.append(arm("a random choice", tuple(drawn)))
    return arms


def _course(
    plain: TrainingPlan, chosen: list[Prescribed], extra: list[Remedy], options: PlanOptions
) -> TrainingPlan:
    steps = [(p.remedy, replace(options, layers=p.layers)) for p in chosen] + [(r, options) for r in extra]
    plan = plain
    for remedy, own in sorted(steps, key=lambda step: (step[0].stage, step[0].name)):
        if remedy.plan is not None:
            plan = remedy.plan(plan, own)
    return replace(plan, epochs=plain.epochs)


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
