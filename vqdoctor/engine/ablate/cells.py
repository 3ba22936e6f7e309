"""The cells of an ablation, and the training that each stands on; equal trainings are done once."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from vqdoctor.core.ablation import Cell, Group
from vqdoctor.core.codec import encode
from vqdoctor.core.frozen import frozen
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.engine.ablate.subject import AS_IT_IS, FSQ
from vqdoctor.remedies import all_remedies
from vqdoctor.training.plan import Plan, PlannedRemedy

STEPS = ("straight-through", "lower-vq-weight", "data-init", "warm-up", "revive-dead-codes")
"""The steps of the recipe in the priority order, one of each stage."""
_STARTS = ("fresh-start", "wake-encoder")
"""Remedies that decide what a training starts from: here all start from a new model."""


@frozen
class Training:
    """One training of a study, with any seed.

    Attributes:
        model: the model of the subject.
        plan: the training plan.
        without_vq: whether the VQ layers are bypassed.
    """

    model: str
    plan: TrainingPlan
    without_vq: bool = False


def lay_out(
    plan: Plan, models: Mapping[str, float | None], epochs: int
) -> tuple[tuple[Cell, ...], dict[str, Training]]:
    """Return the cells of a study, and its trainings by name.

    Args:
        plan: the plan of the subject's examination: its own remedies join the steps of the recipe.
        models: the models of the subject, each with its weight of the VQ loss; None is that of the plan.
        epochs: the budget of every training.
    """
    layout = _Layout(plan=plan, epochs=epochs)
    steps = layout.steps
    numbers = range(1, len(steps) + 1)
    layout.add("without VQ", "reference", "without-vq", without_vq=True)
    for model, weight in models.items():
        name = AS_IT_IS if model == AS_IT_IS else f"{model} as it is"
        layout.add(name, "reference", name.replace(" ", "-").lower(), model=model, weight=weight)
    for n in numbers:
        name = f"{steps[0]}" if n == 1 else f"+ {steps[n - 1]}"
        layout.add(name, "added", f"steps-1-to-{n}", steps[:n])
    for n in numbers:
        layout.add(f"{steps[n - 1]} alone", "alone", f"step-{n}-alone", steps[n - 1 : n])
    for n in numbers:
        kept = (*steps[: n - 1], *steps[n:])
        layout.add(f"all but {steps[n - 1]}", "left out", f"all-but-step-{n}", kept)
    drawn = layout.draw(len(steps))
    layout.add(f"random: {', '.join(drawn)}", "random", "random", drawn)
    layout.add("FSQ of the same size", "in its place", "fsq", model=FSQ)
    return tuple(layout.cells), layout.trainings


def lay_out_stages(
    plan: Plan, models: Mapping[str, tuple[str, ...]], epochs: int
) -> tuple[tuple[Cell, ...], dict[str, Training]]:
    """Return the cells of a study of the chain's stages: each with and without VQ, all trained alike.

    Args:
        plan: the plan of the chain.
        models: its models, each with the stages behind its VQ layer.
        epochs: the budget of every training.
    """
    layout = _Layout(plan=plan, epochs=epochs)
    for without_vq in (True, False):
        for model, stages in models.items():
            named = (*(() if without_vq else ("VQ",)), *stages)
            run = "-".join(named).lower() or "no-stage"
            name = " + ".join(named) or "no stage"
            layout.add(name, "stages", run, STEPS, model=model, without_vq=without_vq)
    return tuple(layout.cells), layout.trainings


class _Layout:
    """Collects cells, and finds cells that share a training."""

    def __init__(self, *, plan: Plan, epochs: int) -> None:
        self.plan, self.epochs = plan, epochs
        self.cells: list[Cell] = []
        self.trainings: dict[str, Training] = {}
        self._known: Mapping[str, PlannedRemedy] = {
            **{remedy.name: PlannedRemedy(remedy=remedy) for remedy in all_remedies()},
            **{planned.remedy.name: planned for planned in plan.applied},
        }
        self._names: dict[str, str] = {}

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps of the recipe, and the remedies that the examination asks for, in the priority order."""
        own = [p.remedy.name for p in self.plan.applied if p.remedy.plan and p.remedy.name not in _STARTS]
        names = dict.fromkeys((*STEPS, *own))
        return tuple(sorted(names, key=lambda name: (self._known[name].remedy.stage, *_place(name))))

    def add(
        self,
        name: str,
        group: Group,
        run: str,
        remedies: Sequence[str] = (),
        *,
        model: str = AS_IT_IS,
        without_vq: bool = False,
        weight: float | None = None,
    ) -> None:
        """Add a cell, on the training of an earlier one where that is the same."""
        plan = self.plan.training_with(self._known[remedy] for remedy in remedies)
        plan = plan if weight is None else replace(plan, vq_weight=weight)
        plan = replace(plan, start="scratch", epochs=self.epochs, further_epochs=0)
        training = Training(model=model, plan=plan, without_vq=without_vq)
        same = json.dumps([model, without_vq, encode(plan)], sort_keys=True)
        run = self._names.setdefault(same, run)
        self.trainings.setdefault(run, training)
        cell = Cell(
            name=name, group=group, run=run, model=model, remedies=tuple(remedies), without_vq=without_vq
        )
        self.cells.append(cell)

    def draw(self, count: int) -> tuple[str, ...]:
        """Return as many remedies at random, of all that a training can apply to this model."""
        acting = (planned.remedy for planned in self._known.values())
        names = sorted(r.name for r in acting if r.plan and not r.changes_model and r.name not in _STARTS)
        return tuple(random.Random(self.plan.untreated.seed).sample(names, k=min(count, len(names))))


def _place(name: str) -> tuple[int, str]:
    """Return the place of a step within its stage: the recipe's own comes first."""
    return (0 if name in STEPS else 1, name)
