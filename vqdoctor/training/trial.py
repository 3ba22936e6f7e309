"""A trial of remedies before the long run: short trainings from one checkpoint, halved until one is left."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from vqdoctor.core.frozen import frozen
from vqdoctor.core.retraining import Arm, Epoch, Figures, Goals, Price
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.remedies import all_remedies
from vqdoctor.training.plan import ANEW, FRESH_ENCODER, Plan, PlannedRemedy
from vqdoctor.training.trainer import Trainer

FIRST_SHARE = 10
"""The first round gives every arm a tenth of the epochs; each further round doubles what an arm has had."""
LEAST_EPOCHS = 2
FREEZE = "freeze-encoder"
EXTRA = ("moment-matching", "entropy-term", FREEZE)
"""Remedies that no finding asks for: each is tried beside the plan."""

Train = Callable[[TrainingPlan], Trainer]
Heard = Callable[[str, Epoch, int], None]


@frozen
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
        """Return the winning remedies, as the plan has them, and the remedies that end any training."""
        last = (planned for planned in plan.applied if planned.remedy.after_training)
        return (*(_known(plan)[name] for name in self.names), *last)


@dataclass(kw_only=True, eq=False)
class _Contestant:
    name: str
    remedies: tuple[str, ...]
    plan: TrainingPlan
    trainer: Trainer | None = None
    extra: bool = False
    history: dict[int, Figures] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        return max(self.history, default=0)

    @property
    def figures(self) -> Figures | None:
        return self.history.get(self.epochs)


def hold_trial(train: Train, plan: Plan, goals: Goals, heard: Heard) -> Tried:
    """Try the plan, each of its remedies alone, the plan with one more, and a random choice beside them.

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
    whole = next(one for one in everyone if one.name == "the plan")
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
            price=_price(one.history, whole.history) if one.extra else None,
        )
        for one in (best, *(one for one in everyone if one is not best))
        if one.figures is not None
    )
    return Tried(arms=arms, plan=best.plan, names=best.remedies)


def _contestants(plan: Plan) -> list[_Contestant]:
    """Return the arms: no remedy, each alone, the plan, the plan with one more, and a random choice."""
    names = tuple(planned.remedy.name for planned in plan.applied if not planned.remedy.after_training)
    known = _known(plan)

    def arm(name: str, remedies: tuple[str, ...], *, extra: bool = False) -> _Contestant:
        training = plan.training_with(known[remedy] for remedy in remedies)
        calibrated = plan.training.calibrated  # at the end, whichever wins
        training = replace(training, epochs=plan.untreated.epochs, calibrated=calibrated)
        return _Contestant(name=name, remedies=remedies, plan=training, extra=extra)

    arms = [arm("as it was", ()), arm("the plan", names)]
    arms += [arm(name, (name,)) for name in names if len(names) > 1]
    # An encoder that has learned nothing yet is better left free.
    start = plan.training.start
    learned = start in ("checkpoint", "without-vq") or plan.training.bypass_epochs > 0
    anew = () if start == "without-vq" else ANEW
    extra = (*anew, *(name for name in EXTRA if learned or name != FREEZE))
    more = [name for name in extra if name not in names and name not in plan.unable]
    arms += [arm(f"the plan with {name}", (*names, name), extra=True) for name in more]
    if FRESH_ENCODER in names:
        kept = tuple(name for name in names if name != FRESH_ENCODER)
        arms.append(arm("the plan with the encoder kept", kept))
    acting = (planned.remedy for planned in known.values())
    able = (remedy for remedy in acting if remedy.name not in plan.unable)
    everything = sorted(
        r.name for r in able if r.plan is not None and not (r.changes_model or r.after_training)
    )
    drawn = random.Random(plan.untreated.seed).sample(everything, k=min(max(len(names), 1), len(everything)))
    arms.append(arm("a random choice", tuple(drawn)))
    return arms


def _known(plan: Plan) -> dict[str, PlannedRemedy]:
    """Return every remedy by its name: as the plan has it, else as it is on all layers."""
    known = {remedy.name: PlannedRemedy(remedy=remedy) for remedy in all_remedies()}
    return known | {planned.remedy.name: planned for planned in plan.remedies}


def _go_on(contestant: _Contestant, train: Train, epochs: int, heard: Heard) -> None:
    """Train an arm until it has had that many epochs with VQ."""
    if contestant.trainer is None:
        contestant.trainer = train(contestant.plan)
    trainer = contestant.trainer
    phase = f"trial: {contestant.name}"
    before = contestant.plan.bypass_epochs
    trainer.train_to(before + epochs, lambda row: heard(phase, row, before + epochs))
    found = trainer.rows[-1].stop or trainer.figures() if trainer.rows else None
    if found is not None:
        contestant.history[epochs] = trainer.ranks.agreed_value(found)


def _price(history: Mapping[int, Figures], plan: Mapping[int, Figures]) -> Price | None:
    """Return an arm's figures less those of the plan, after the most epochs that both have had."""
    epochs = max(set(history) & set(plan), default=None)
    if epochs is None:
        return None
    one, other = history[epochs], plan[epochs]
    lowest = (min((layer.perplexity for layer in f.layers.values()), default=None) for f in (one, other))
    return Price(
        epochs=epochs,
        loss=one.loss - other.loss,
        accuracy=_less(one.accuracy, other.accuracy),
        perplexity=_less(*lowest),
    )


def _less(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _merit(contestant: _Contestant, goals: Goals) -> tuple[float, ...]:
    figures = contestant.figures
    if figures is None or not math.isfinite(figures.loss):
        return (-1.0, 0.0, 0.0)
    return (goals.attained(figures), figures.accuracy or 0.0, -figures.loss)
