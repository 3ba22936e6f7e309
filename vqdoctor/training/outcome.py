"""The outcome of a run: the repairs, the changes left for the source, and the tensors to write."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from vqdoctor.core.evidence import TrainingRecord
from vqdoctor.core.report import Repair
from vqdoctor.core.retraining import Figures, Retraining, SourceChange
from vqdoctor.models.tensors import to_numpy
from vqdoctor.training.plan import ANEW, CALIBRATE, ESTIMATOR, Plan, PlannedRemedy
from vqdoctor.training.trainer import Trainer
from vqdoctor.training.trial import Tried

SETTINGS = (
    "lower-vq-weight",
    "raise-vq-weight",
    "faster-ema",
    "exempt-codebook",
    "shuffle",
    "clip-gradients",
    "lower-learning-rate",
)
"""Remedies that train with another setting than the user's source, or the optimizer in the file, has."""
TRAINING_ONLY = (*SETTINGS, "data-init", "refresh-batch-norm")
"""Remedies that correct how a model is trained, and leave no trace in its source."""
IN_ITS_PLACE = {
    "sound-ema": "writes wrong codes again",
    "codes-by-ema": "leaves the codes where they are",
    "commitment-term": "does not hold z_e at the codes",
}
"""Remedies that do a part of the source's own work at every step, and what the source does without them."""
TOLD_ALONE = {*TRAINING_ONLY, *IN_ITS_PLACE, ESTIMATOR, *ANEW}
"""Remedies that have a change of the source to themselves, where a finding asks for them; a new training from
the source is anew without any."""
AS_IT_TRAINS = {"step-per-epoch": "the retraining held its learning rate, and so was without this fault"}
"""Advice that every retraining follows by the way it trains, in words; a task's own steps may not."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """The result of a run.

    Attributes:
        trainer: the finished training, with the retrained model.
        plan: the plan.
        retraining: the figures before and after, epoch by epoch.
        tried: the trial; None without one.
        uncalibrated: why the class scores were left as they were; "" where they were divided.
    """

    trainer: Trainer
    plan: Plan
    retraining: Retraining
    tried: Tried | None = None
    uncalibrated: str = ""

    @property
    def applied(self) -> tuple[PlannedRemedy, ...]:
        """The remedies in the training plan that was trained."""
        return self.plan.applied if self.tried is None else self.tried.planned(self.plan)

    def tensors(self, raw_keys: Mapping[str, str], stored: Collection[str]) -> dict[str, NDArray[np.generic]]:
        """Return the retrained model's tensors under the keys of the file.

        Args:
            raw_keys: name of a tensor in the model to its key in the file.
            stored: the file's keys.
        """
        state: Mapping[str, torch.Tensor] = self.trainer.model.state_dict()
        kept = {raw: state[name] for name, raw in raw_keys.items() if name in state and raw in stored}
        return {raw: to_numpy(tensor) for raw, tensor in kept.items()}

    def record(
        self, before: TrainingRecord, own_decay: float | None
    ) -> dict[str, float | int | list[str] | None]:
        """Return the settings of the training that the output comes from, for the file's probes.

        Where the EMA neither starts anew nor forgets faster, its start values have both trainings' updates
        behind them.

        Args:
            before: the record of the input's training.
            own_decay: the decay of the source's EMA, the slowest of several; None where it is unknown.
        """
        plan, rows, steps = self.retraining.plan, self.retraining.epochs, self.trainer.steps
        anew = plan.data_init or plan.decay is not None
        led = self.trainer.codebooks.led
        return {
            "vq_weight": rows[-1].vq_weight if rows else None,
            "decay": own_decay if plan.decay is None and not led else plan.decay,
            "epochs": len(rows),
            "updates": steps if anew or before.updates is None else before.updates + steps,
            "exempt_codebook": plan.exempt_codebook,
            "codes_by_ema": list(led),
        }

    def repairs(self) -> Iterator[Repair]:
        """Yield every remedy as a repair, with the figures of the run that it was part of."""
        before, after = (_quoted(f) for f in (self.retraining.before, self.retraining.after))
        arms = {arm.remedies: arm for arm in self.retraining.trial}
        untreated = _quoted(arms[()].figures) if () in arms else {}
        chosen = {planned.remedy.name for planned in self.applied}
        for planned in self.plan.remedies:
            name = planned.remedy.name
            if name == CALIBRATE and name in chosen and self.uncalibrated:
                yield Repair(remedy=name, status="no-effect", reason=self.uncalibrated)
            elif planned.refused:
                yield Repair(remedy=name, status="skipped", reason=self._why_skipped(planned))
            elif name in chosen and not self.retraining.written:
                reason = "the retrained model does its task worse"
                yield Repair(remedy=name, status="reverted", reason=reason, before=before, after=after)
            elif name in chosen:
                yield Repair(remedy=name, status="applied", reason=planned.reason, before=before, after=after)
            else:
                alone = arms.get((name,))
                yield Repair(
                    remedy=name,
                    status="reverted",
                    reason="the trial did better without it",
                    before=untreated,
                    after={} if alone is None else _quoted(alone.figures),
                )
        for name in sorted(chosen - {planned.remedy.name for planned in self.plan.remedies}):
            yield Repair(remedy=name, status="applied", reason="won the trial", before=before, after=after)

    def _why_skipped(self, planned: PlannedRemedy) -> str:
        """Return why a remedy was left out; of one that the retraining does without it, what that leaves."""
        followed = AS_IT_TRAINS.get(planned.remedy.name)
        own_steps = getattr(self.trainer.task, "trains_itself", False)
        if followed is None or own_steps or planned.remedy.how not in planned.refused:
            return planned.refused
        return f"{followed}; in your own training: {planned.remedy.how}"

    def left_in_source(self, still_found: Collection[str]) -> Iterator[SourceChange]:
        """Yield the changes that the retraining made and the user's source still lacks.

        Where the source has to train again, the last one is what this retraining did beside that.

        Args:
            still_found: codes of the findings of the output.
        """
        changes = tuple(self._lacking(still_found))
        yield from changes
        beside = [one for one in self.applied if not (one.because and one.remedy.name in TOLD_ALONE)]
        beside = [one for one in beside if not (one.remedy.after_training or one.remedy.changes_model)]
        if changes and beside:
            names = ", ".join(one.remedy.name for one in beside)
            led = ", ".join(self.trainer.codebooks.led)
            by_ema = f", and an EMA that moved the codes of {led}" if led else ""
            why = f"this retraining had more than that, which a training from the source may need: {names}"
            yield SourceChange(why=why + by_ema, code="\n".join(one.remedy.code for one in beside))

    def _lacking(self, still_found: Collection[str]) -> Iterator[SourceChange]:
        """Yield the changes that its findings ask for."""
        for planned in self.applied:
            remedy, because = planned.remedy, ", ".join(planned.because)
            if remedy.name == ESTIMATOR and set(still_found) & set(planned.because):
                layers = ", ".join(planned.layers)
                why = f"{layers} has no straight-through estimator ({because}): end it with"
                yield SourceChange(why=why, code=remedy.code, codes=planned.because)
            elif remedy.name in IN_ITS_PLACE:
                yield from self._own_lines(planned)
            elif remedy.changes_model:
                why = f"the retrained weights need the source to do the same as {remedy.name}"
                yield SourceChange(why=why, code=remedy.code)
            elif planned.because and remedy.plan is not None and remedy.name in TRAINING_ONLY:
                why = f"a training from the source will need {remedy.name} again ({because})"
                is_old = remedy.name in SETTINGS and not self._is_asked(remedy.name)
                yield SourceChange(why=why, code=remedy.code, codes=planned.because if is_old else ())

    def _is_asked(self, remedy: str) -> bool:
        """Whether the user gave the value of a remedy: what is found again may be of that value."""
        return remedy.endswith("-vq-weight") and self.plan.options.vq_weight is not None

    def _own_lines(self, taken: PlannedRemedy) -> Iterator[SourceChange]:
        """Yield the lines that the source lacks where a remedy stood in: the advice of its findings."""
        advice = [
            planned
            for planned in self.plan.remedies
            if planned.remedy.plan is None and set(planned.because) & set(taken.because)
        ]
        for planned in advice or (taken,):
            because = f" ({', '.join(planned.because)})" if planned.because else ""
            effect = IN_ITS_PLACE[taken.remedy.name]
            why = f"a training from the source {effect}{because}: {planned.remedy.how}"
            yield SourceChange(why=why, code=planned.remedy.code, codes=planned.because)


def _quoted(figures: Figures | None) -> dict[str, float]:
    """Return the figures that repairs quote: of several layers the worst."""
    if figures is None:
        return {}
    found: dict[str, float] = {"task_loss": figures.loss}
    if figures.layers:
        found["perplexity"] = min(layer.perplexity for layer in figures.layers.values())
        found["active"] = float(min(layer.active for layer in figures.layers.values()))
        found["active_share"] = min(layer.active_share for layer in figures.layers.values())
    if figures.accuracy is not None:
        found["accuracy"] = figures.accuracy
    if figures.ece is not None:
        found["ece"] = figures.ece
    return {name: value for name, value in found.items() if math.isfinite(value)}
