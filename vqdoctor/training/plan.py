"""The plan: the remedies that an examination asks for, in the priority order, as printed and as trained."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import field, replace

from vqdoctor.core.frozen import frozen
from vqdoctor.core.report import PlanStep, Repair
from vqdoctor.core.training_plan import PlanOptions, TrainingPlan
from vqdoctor.remedies import Remedy

AUTOENCODER, FRESH_ENCODER, FRESH_START = "autoencoder-warm-up", "wake-encoder", "fresh-start"
CALIBRATE, ESTIMATOR = "calibrate", "straight-through"
ANEW = (FRESH_ENCODER, FRESH_START)
"""Remedies that build a part of the model anew."""
NEW_ALREADY = "the training began with the model that learned without VQ, all of which is new"
KNOWS_AS_MUCH = "the checkpoint's z_e does the task as well as the model that learned without VQ"


@frozen
class PlannedRemedy:
    """One remedy of a plan.

    Attributes:
        remedy: the remedy.
        because: codes of the findings that ask for it; empty for one of the recipe, or asked for by name.
        layers: the layers of those findings; all layers where the findings name none.
        refused: why a retraining leaves it out; "" where a retraining applies it.
        blocks: whether it must be done in the user's source before any training: no remedy acts on its cause.
    """

    remedy: Remedy
    because: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    refused: str = ""
    blocks: bool = False

    @property
    def reason(self) -> str:
        """The findings that ask for it, in words."""
        return ", ".join(self.because) or "part of every retraining"


@frozen
class Plan:
    """The remedies in the priority order: the report prints `steps`, a retraining follows `training`.

    Attributes:
        untreated: the training plan without any remedy.
        options: the values that remedies write into a training plan.
        remedies: every remedy that is asked for, refused ones included.
        unable: the remedies that this training cannot take, each with the reason.
        learned_without_vq: whether a warm-up without VQ is the training of that model, which is over.
    """

    untreated: TrainingPlan
    options: PlanOptions
    remedies: tuple[PlannedRemedy, ...]
    unable: Mapping[str, str] = field(default_factory=dict)
    learned_without_vq: bool = False

    @property
    def applied(self) -> tuple[PlannedRemedy, ...]:
        """The remedies that a retraining applies."""
        return tuple(planned for planned in self.remedies if not planned.refused)

    @property
    def blocking(self) -> tuple[PlannedRemedy, ...]:
        """The remedies that must be done in the user's source before any training."""
        return tuple(planned for planned in self.remedies if planned.blocks)

    @property
    def training(self) -> TrainingPlan:
        """The training plan with every remedy that a retraining applies."""
        return self.training_with(self.applied)

    def training_with(self, chosen: Iterable[PlannedRemedy]) -> TrainingPlan:
        """Return the untreated training plan with other remedies, applied in the priority order."""
        found, chosen = self.untreated, tuple(chosen)
        for planned in sorted(chosen, key=lambda planned: (planned.remedy.stage, planned.remedy.name)):
            if planned.remedy.plan is not None:
                layers = planned.layers or self.options.layers
                found = planned.remedy.plan(
                    found, replace(self.options, layers=layers, asked=bool(planned.because))
                )
        if self.learned_without_vq and AUTOENCODER in {planned.remedy.name for planned in chosen}:
            found = replace(found, start="without-vq", bypass_epochs=0)
        return replace(found, further_epochs=max(0, self.options.most_epochs - found.epochs))

    def begun(self, *, better_without_vq: bool | None) -> Plan:
        """Return the plan after the training without VQ, which is the warm-up of the same kind.

        That model is the start, unless the checkpoint knows as much already. A remedy that this leaves
        without an effect is refused.

        Args:
            better_without_vq: whether that model does the task better than the checkpoint; None is unknown.
        """
        if better_without_vq is None or AUTOENCODER not in {one.remedy.name for one in self.applied}:
            return self
        start = self.training.start
        if better_without_vq or start == "scratch":
            return replace(self._refusing(ANEW, NEW_ALREADY), learned_without_vq=True)
        return self._refusing((AUTOENCODER,), KNOWS_AS_MUCH) if start == "checkpoint" else self

    def _refusing(self, names: Collection[str], why: str) -> Plan:
        """Return the plan with these remedies refused, where it has them."""
        remedies = (
            replace(one, refused=one.refused or why) if one.remedy.name in names else one
            for one in self.remedies
        )
        return replace(self, remedies=tuple(remedies))

    @property
    def intended(self) -> tuple[Repair, ...]:
        """Every remedy as a repair of a dry run: applied, or skipped for a reason."""
        return tuple(
            Repair(remedy=planned.remedy.name, status="skipped", reason=planned.refused)
            if planned.refused
            else Repair(remedy=planned.remedy.name, status="applied", reason=planned.reason)
            for planned in self.remedies
        )

    @property
    def steps(self) -> tuple[PlanStep, ...]:
        """The plan as a report prints it: the steps of a retraining, and the steps left to a person."""
        return tuple(
            PlanStep(
                step=number,
                remedy=planned.remedy.name,
                codes=planned.because,
                how=planned.remedy.how,
                code=planned.remedy.code,
            )
            for number, planned in enumerate(self.remedies, start=1)
        )
