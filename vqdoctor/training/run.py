"""One run: the training without VQ, the trial, the retraining; each is taken up where it was left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from vqdoctor.core.codec import decode, encode
from vqdoctor.core.errors import UserError
from vqdoctor.core.paired import TOLERANCE
from vqdoctor.core.retraining import STOPPING, Epoch, Figures, Goals, Retraining
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.training.clock import Clock
from vqdoctor.training.evaluate import Logits, Measured, compared, is_worse, one_vector
from vqdoctor.training.outcome import Outcome
from vqdoctor.training.plan import Plan
from vqdoctor.training.resume import (
    FORMAT,
    KIND,
    OUTPUT,
    RESTART,
    digest_of,
    load_state,
    save_state,
    state_path,
)
from vqdoctor.training.start import named_tensors
from vqdoctor.training.temperature import calibrate
from vqdoctor.training.trainable import Trainable
from vqdoctor.training.trainer import Trainer
from vqdoctor.training.trial import Tried, hold_trial
from vqdoctor.training.without_vq import Candidate, WithoutVQ

UNTIMED: Mapping[str, Any] = {"epochs": 0, "steps": 0}
"""The measures of a training plan that a timed batch decides, as a run's identity leaves them out."""


ALIKE = ("epochs", "steps", "seed", "shuffled", "usual_rate", "clip_norm", "norm_momentum")
"""The parts of a plan that do not act on the VQ layers: the model without them is trained alike."""


class Watcher(Protocol):
    """Follows a retraining."""

    def say(self, doing: str) -> None:
        """Report the work at hand, in a few words."""

    def epoch(self, phase: str, row: Epoch, epochs: int) -> None:
        """Report a finished epoch of a phase ("without VQ", "retraining", …) of that many."""


@dataclass(kw_only=True, eq=False)
class Run:
    """A run whose state is kept beside the output after every epoch.

    Attributes:
        trainable: the examined model.
        plan: the plan.
        fingerprint: of the input and the options beside the plan; a state of another one is refused.
        output: the file that is to be written.
        goals: the goals of a cure; without `min_accuracy` it is measured by training without VQ.
        trial: whether the remedies are tried against each other first.
        resume: whether to go on with an unfinished run.
        timed: whether the plan's steps come from a timed batch, and may be others when the run is taken up.
        clock: the time that is left.
        keep_worse: whether a model that does its task worse than the checkpoint is written too.
        heard: called after every epoch with the phase, the epoch, and the number of epochs.
        state: the state that is kept beside the output.
    """

    trainable: Trainable
    plan: Plan
    fingerprint: str
    output: Path
    goals: Goals
    trial: bool = False
    resume: bool = False
    timed: bool = False
    clock: Clock = field(default_factory=Clock)
    keep_worse: bool = False
    heard: Callable[[str, Epoch, int], None] = lambda *_: None
    state: dict[str, Any] = field(default_factory=dict)

    def complete(self) -> Outcome | Retraining:
        """Run all phases, from where an unfinished run was left.

        Where neither the checkpoint nor the same model without VQ has learned anything of the task or makes
        any use of z_e, and the loss of the latter falls no further, nothing that acts on VQ can help: no more
        is trained, and the result is a bare `Retraining`.

        Raises:
            UserError: if an unfinished run lies there that is not to be resumed, or is another one; or if the
                loss does not stay finite.
            KeyboardInterrupt: if the run is interrupted before the first epoch of the retraining is done.
        """
        self._take_up()
        without_vq, scores = self._without_vq()
        before, baseline = self.trainable.before, without_vq.val
        if baseline is not None and before is not None and without_vq.unlearned:
            return self._unlearned(before, baseline)
        # What ends the training is stricter than what is quoted.
        by_stop = without_vq.goals(self.goals, TOLERANCE / 2, on_stop=True)
        by_val = without_vq.goals(self.goals, TOLERANCE).no_worse_than(before, without_vq.least_loss)
        learned: Mapping[str, torch.Tensor] | None = self.state["baseline"]["learned"]
        self.plan = self.plan.begun(better_without_vq=without_vq.is_better)
        tried = self._tried(by_stop, learned)
        plan = self.plan.training if tried is None else tried.plan
        early = by_stop if self.trainable.splits.has_stop else None
        trainer = self.trainable.trainer(plan, goals=early, clock=self.clock.share(1.0), learned=learned)
        interrupted = self._train(trainer, "retraining")
        uncalibrated = calibrate(trainer) if plan.calibrated else ""
        measured = trainer.measure()
        paired, worse, at_start = None, False, self.trainable.measured_before
        if measured is not None and scores is not None and measured.logits is not None:
            assert measured.labels is not None
            paired = compared(measured.logits, scores, measured.labels)
        if measured is not None and at_start is not None:
            worse = is_worse(measured, at_start)
        after = None if measured is None else measured.figures
        return Outcome(
            trainer=trainer,
            plan=self.plan,
            tried=tried,
            uncalibrated=uncalibrated,
            retraining=Retraining(
                plan=plan,
                epochs=tuple(trainer.rows),
                result=trainer.ending.result_at,
                before=before,
                after=after,
                without_vq=baseline,
                goals=() if after is None else by_val.compare(after, paired),
                trial=() if tried is None else tried.arms,
                ended=trainer.ending.reason,
                interrupted=interrupted,
                bypassed=without_vq.bypassed,
                too_short=without_vq.too_short,
                worse=worse,
                written=self.keep_worse or not worse,
                processes=self.trainable.ranks.size,
            ),
        )

    def _unlearned(self, before: Figures, baseline: Figures) -> Retraining:
        """Return the result of a run that ends after the training without VQ, and drop its state."""
        if self.trainable.ranks.first:
            state_path(self.output).unlink(missing_ok=True)
        return Retraining(
            plan=self.plan.training,
            epochs=(),
            before=before,
            after=None,
            without_vq=baseline,
            ended="unlearned",
            written=False,
        )

    def _take_up(self) -> None:
        """Take up the unfinished run beside the output where that is asked for."""
        path = state_path(self.output)
        identity = {
            "format": FORMAT,
            "input": self.fingerprint,
            "data": self.trainable.splits.fingerprint,
            "plan": encode(replace(self.plan.training, **UNTIMED) if self.timed else self.plan.training),
            "goals": encode(self.goals),
            "trial": self.trial,
        }
        measures = {name: getattr(self.plan.untreated, name) for name in UNTIMED}
        self.state = {"kind": KIND, "identity": identity, "measures": measures}
        ranks, there = self.trainable.ranks, path.exists()
        if ranks.added([float(there)])[0] != ranks.size * there:
            raise UserError(f"not every process sees {path}", "use a folder that all machines share")
        if not there:
            return
        if not self.resume:
            raise UserError(f"{path} holds an unfinished run", "add --resume to go on, or delete it")
        found = load_state(path)
        if found.get("identity") != identity:
            raise UserError(
                f"{path} is of a run with other settings, other data, another checkpoint or another vqdoctor",
                "give the same options, or delete it",
            )
        self.state = found
        if self.timed:  # the budget in steps is that of the batch that was timed then
            measures = {name: found["measures"][name] for name in UNTIMED}
            self.plan = replace(self.plan, untreated=replace(self.plan.untreated, **measures))

    def _without_vq(self) -> tuple[WithoutVQ, Logits | None]:
        """Return the same model without VQ after a training as long, and its class scores on val.

        These are None where no goal comes from them.
        """
        if "baseline" not in self.state:
            found, scores, learned = WithoutVQ(), None, None
            if self.trainable.needs_without_vq(self.goals):
                training = self.plan.training
                plain = TrainingPlan(**{name: getattr(training, name) for name in ALIKE})
                trainer = self.trainable.trainer(plain, without_vq=True, clock=self.clock.share(0.5))
                if self._train(trainer, "without VQ"):
                    raise KeyboardInterrupt
                found, best = self._compared(trainer)
                if best is not None and best.logits is not None and not found.too_short:
                    scores = torch.from_numpy(best.logits)
                if found.is_better or self.trial or training.start == "scratch":
                    learned = {name: tensor.cpu().clone() for name, tensor in named_tensors(trainer.model)}
            self.state["baseline"] = {"found": encode(found), "scores": scores, "learned": learned}
            self.state.pop("training", None)
        kept = self.state["baseline"]
        scores = kept["scores"]
        return decode(WithoutVQ, kept["found"], "state", RESTART), None if scores is None else scores.numpy()

    def _compared(self, trainer: Trainer) -> tuple[WithoutVQ, Measured | None]:
        """Return the better one of the model that was trained without VQ and the bypassed checkpoint."""
        val, one = trainer.measure(), trainer.measure(change=one_vector)
        checkpoint = self.trainable.bypassed(trainer.plan.steps or None)
        with_codes = self.trainable.measured_before
        if val is None or one is None or checkpoint is None or with_codes is None:
            return WithoutVQ(), None
        trained = Candidate(val=val, one=one, stop=trainer.rows[-1].stop if trainer.rows else None)
        settled = trainer.ending.settled(trainer.rows)
        found = WithoutVQ.of(trained, checkpoint, with_codes, settled=settled)
        found = self.trainable.ranks.agreed_value(found)
        return found, checkpoint.val if found.bypassed else val

    def _tried(self, goals: Goals, learned: Mapping[str, torch.Tensor] | None) -> Tried | None:
        """Return the result of the trial; None if the run has no trial."""
        if not self.trial:
            return None
        if "trial" not in self.state:
            train = partial(self.trainable.trainer, learned=learned)
            tried = hold_trial(train, self.plan, goals, self.heard)
            self.state["trial"] = encode(tried)
            self._save()
        return decode(Tried, self.state["trial"], "state", RESTART)

    def note_output(self) -> None:
        """Keep the digest of the output that was written, by which `--resume` knows it again."""
        self.state[OUTPUT] = digest_of(self.output)
        self._save()

    def _save(self) -> None:
        if self.trainable.ranks.first:
            save_state(self.state, state_path(self.output))

    def _train(self, trainer: Trainer, phase: str) -> bool:
        """Train, keeping the state after every epoch; return whether it was interrupted."""
        kept = self.state.get("training")
        if kept is not None and kept["phase"] == phase:
            trainer.load_state_dict(kept["trainer"])

        def after_epoch(row: Epoch) -> None:
            self.state["training"] = {"phase": phase, "trainer": trainer.state_dict()}
            self._save()
            epochs, more = trainer.plan.epochs, trainer.plan.further_epochs
            self.heard(phase, row, epochs if row.epoch < epochs or not more else epochs + more)

        try:
            trainer.run(after_epoch)
        except KeyboardInterrupt:
            kept = self.state.get("training")
            together = self.trainable.ranks.size > 1  # the others are not in the same step
            if together or kept is None or kept["phase"] != phase or phase != "retraining":
                raise
            trainer.load_state_dict(kept["trainer"])  # the epoch that was interrupted is not half counted
            if len(trainer.rows) <= trainer.plan.bypass_epochs:
                raise  # its codes are not placed yet
            self.trainable.say(STOPPING)
            trainer.finish()
            return True
        return False
