"""The end of a training: why, its cool-down, and which of its epochs is the result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vqdoctor.core.retraining import Ended, Epoch, Goals
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.training.clock import Clock

PATIENCE = 10
"""Epochs in a row on which the goals must hold before the training ends. On a few hundred samples
an accuracy is uncertain by a point, about as much as the goals allow: a short run of luck must not do."""
PLATEAU = 10
"""Epochs without a new lowest task loss on the stop split after which no lower one is awaited (measured on
motion windows, a stop split of 342: the loss of an epoch differs from the next by some 10 %, and in the 20
epochs after such a plateau the calibration error on other people rises from 0.06 to 0.09)."""
FALL = 0.05
"""Fall of the task loss in `PLATEAU` epochs from which it still falls: as much as a cure may lose against a
training by hand."""
COOL_DOWN = 1 / 3
"""Share of a plan's epochs, its last ones, over which the learning rate falls to nothing and no code is
revived."""


@dataclass(kw_only=True, eq=False)
class Ending:
    """Decides after each epoch whether a training goes on.

    Attributes:
        plan: the training plan.
        goals: what ends the training early; None trains for all epochs.
        clock: the time that is left.
        done: epochs that are done.
        streak: epochs in a row on which the goals held.
        waited: epochs since the lowest task loss.
        lowest: that loss, of the epochs at which the codebooks reached their goals.
        past: the lowest loss as it was after each epoch that was looked at.
        best: the state of the training after that epoch; None before there is one.
        lowest_at: the number of that epoch.
        cooled: epochs of the cool-down that are done.
        reason: why the training ends; "" before its cool-down begins.
    """

    plan: TrainingPlan
    goals: Goals | None
    clock: Clock = field(default_factory=Clock)
    done: int = 0
    streak: int = 0
    waited: int = 0
    lowest: float = math.inf
    past: list[float] = field(default_factory=list)
    best: Mapping[str, Any] | None = None
    lowest_at: int = 0
    cooled: int = 0
    reason: Ended = ""

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the cool-down is, or the time is."""
        most = self.plan.epochs + self.plan.further_epochs
        late = self.done > 0 and not self.clock.allows(1)
        return late or self.done >= most or 0 < self.cool_down <= self.cooled

    @property
    def result(self) -> Mapping[str, Any] | None:
        """The state of the epoch that is the result; None where that is the last one."""
        return self.best if self.waited else None

    @property
    def result_at(self) -> int | None:
        """The number of that epoch; None before there is one."""
        return (self.done if self.result is None else self.lowest_at) or None

    @property
    def cooling(self) -> bool:
        """Whether the next epoch is one of the cool-down."""
        return self.cool_down > 0 and bool(self.reason)

    @property
    def rate(self) -> float:
        """The share of the learning rate that the next epoch has."""
        return 1.0 - (self.cooled + 1) / (self.cool_down + 1) if self.cooling else 1.0

    @property
    def cool_down(self) -> int:
        """The epochs of the cool-down."""
        return int(COOL_DOWN * self.plan.epochs)

    def after_epoch(self, row: Epoch, state: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Take an epoch into account, and return the state that the cool-down starts from.

        The result is None where the training goes on from where it is.

        Args:
            row: the epoch.
            state: all that it left behind.
        """
        self.done += 1
        self.clock.tick()
        if self.cooling:
            self.cooled += 1
            self._look_at(row, state)
            return None
        if row.epoch >= self.plan.bypass_epochs + max(1, self.plan.warm_up_epochs):
            self._look_at(row, state)
        if self.streak >= PATIENCE and self._holds_task and len(self.past) > PLATEAU and not self._falls:
            self.reason = "goals"
        elif self.waited >= PLATEAU:
            self.reason = "plateau"
        elif not self.clock.allows(self.cool_down + 1):
            self.reason = "time"
        elif self.done >= self.plan.epochs - self.cool_down:
            most = self.plan.epochs + self.plan.further_epochs
            if not self._falls:
                self.reason = "epochs"
            elif self.done >= most - self.cool_down:
                self.reason = "budget"
        return self.result if self.reason else None

    @property
    def _falls(self) -> bool:
        """Whether the task loss still falls."""
        return len(self.past) > PLATEAU and _fell(self.past[-1 - PLATEAU], self.past[-1])

    def settled(self, rows: Sequence[Epoch]) -> bool:
        """Whether the task loss on the stop split fell no further before the cool-down.

        It had `PLATEAU` epochs of whole passes to begin, and then fell by less than `FALL` in as many.

        Args:
            rows: all epochs of the training.
        """
        before = rows[: len(rows) - self.cooled] if not self.plan.steps else ()
        losses = [row.stop.loss for row in before if row.stop is not None]
        return len(losses) >= 2 * PLATEAU and not _fell(losses[-PLATEAU], losses[-1])

    @property
    def _holds_task(self) -> bool:
        """Whether the goals say what the task can reach; else only its plateau shows it."""
        goals = self.goals
        return goals is not None and (goals.min_accuracy is not None or goals.max_loss is not None)

    def _look_at(self, row: Epoch, state: Mapping[str, Any]) -> None:
        if self.goals is None or row.stop is None:
            return
        self.streak = self.streak + 1 if self.goals.met(row.stop) else 0
        codebooks = [goal for goal in self.goals.compare(row.stop) if goal.name in ("perplexity", "usage")]
        used = all(goal.met for goal in codebooks)
        if used and row.stop.loss < self.lowest:
            self.lowest, self.best, self.waited = row.stop.loss, state, 0
            self.lowest_at = row.epoch
        elif self.best is not None:
            self.waited += 1
        self.past.append(self.lowest)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a resumed run."""
        names = ("done", "streak", "waited", "lowest", "past", "best", "lowest_at", "cooled", "reason")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        for name, value in state.items():
            setattr(self, name, value)


def _fell(before: float, after: float) -> bool:
    """Whether a loss, which may be negative, fell by more than a twentieth of its size; from infinity too."""
    return after < (before - FALL * abs(before) if math.isfinite(before) else before)
