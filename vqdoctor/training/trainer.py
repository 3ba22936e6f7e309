"""The training loop: a training plan, epoch by epoch, to be interrupted and taken up at any of them."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from vqdoctor.capture.layer import CapturedLayer, Change, bypass
from vqdoctor.core.codec import decode, encode
from vqdoctor.core.errors import UserError
from vqdoctor.core.retraining import Epoch, Figures, Goals
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.models.task import Batch, Losses, Task
from vqdoctor.models.untouched import seed_all
from vqdoctor.training.clock import Clock
from vqdoctor.training.codebooks import Codebooks
from vqdoctor.training.ending import Ending
from vqdoctor.training.evaluate import Measured, evaluate, measure
from vqdoctor.training.mean import MeanModel
from vqdoctor.training.norms import let_statistics_follow
from vqdoctor.training.optimizer import HOOKED, Optimizers, SavedRecipe, optimizers_of
from vqdoctor.training.own_steps import NO_EXEMPTION, NO_STAND_IN, OwnSteps, weighed
from vqdoctor.training.precision import against_bfloat16, bfloat16_is_fast, device_of
from vqdoctor.training.pursuit import Pursuit
from vqdoctor.training.ranks import Ranks
from vqdoctor.training.resume import RESTART
from vqdoctor.training.schedule import balanced_weight, warm_up
from vqdoctor.training.shares import Shares
from vqdoctor.training.splits import Splits, Stretches
from vqdoctor.training.start import leading_to, require_finite
from vqdoctor.training.treatment import grafts
from vqdoctor.training.vq_loss import completed, weighted

RETRIES = 3
"""How often a non-finite loss sends a training back to its last finished epoch, at half the learning rate."""


class NotFinite(Exception):
    """The loss was not finite."""


@dataclass(kw_only=True, eq=False)
class Trainer:
    """One retraining of one model, which is changed.

    The same plan on the same task gives the same model, also across an interruption: every epoch starts
    from a random state of its own, and what else an epoch leaves behind is in `state_dict`.

    Attributes:
        model: the model, on its device; it is changed.
        task: its task.
        splits: the task's batches.
        layers: its VQ layers.
        plan: what is done.
        goals: what ends the training early; None trains for all epochs.
        without_vq: whether the layers are bypassed: the same model without VQ.
        recipe: the optimizer that the file describes, for a task without one.
        clock: the time that is left.
        ranks: the processes that train it together.
        say: told what is being done.
        weighs: whether the VQ loss can be weighed; a task's own step may not let it.
        rows: the epochs so far.
        notes: what could not be done, one line each.
        optimizers: the optimizers of the model.
        codebooks: what is done to the codebooks beside the steps.
        ending: when and why the training ends.
        mean: that of the model over its last steps: by it the model is judged, and it is the result.
        steps: optimizer steps that are done.
        mixed: whether the model is trained in bfloat16; its VQ layers then run in float32.
    """

    model: torch.nn.Module
    task: Task
    splits: Splits
    layers: tuple[CapturedLayer, ...]
    plan: TrainingPlan
    goals: Goals | None = None
    without_vq: bool = False
    recipe: SavedRecipe | None = None
    clock: Clock = field(default_factory=Clock)
    ranks: Ranks = field(default_factory=Ranks)
    say: Callable[[str], None] = lambda _: None
    weighs: bool = True
    rows: list[Epoch] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    steps: int = 0
    mixed: bool = False
    optimizers: Optimizers = field(init=False)
    codebooks: Codebooks = field(init=False)
    ending: Ending = field(init=False)
    mean: MeanModel = field(init=False)
    _stretches: Stretches = field(init=False)
    _shares: Shares = field(init=False)
    _own: OwnSteps | None = field(init=False, default=None)
    _weight: float = field(init=False, default=0.0)
    _retries: int = 0
    _held: list[torch.nn.Parameter] = field(init=False, default_factory=list)
    _started: bool = False

    def __post_init__(self) -> None:
        """Set the optimizer up, and what goes along with its steps."""
        self.optimizers = optimizers_of(self.task, self.model, self.recipe)
        if getattr(self.task, "trains_itself", False):
            self._own = OwnSteps(task=self.task, model=self.model, optimizers=self.optimizers)
            self.notes += [NO_STAND_IN] * self.plan.sound_ema + [NO_EXEMPTION] * self.plan.exempt_codebook
        elif self.plan.exempt_codebook:
            tables = [table for layer in self.layers if (table := layer.stored()) is not None]
            self.notes += [] if self.optimizers.exempt(tables) else [HOOKED]
        if self.plan.usual_rate:
            self.optimizers.lower_rates()
        if self.plan.norm_momentum:
            let_statistics_follow(self.model, self.plan.norm_momentum)
        self._stretches = Stretches(self.splits, self.plan.seed, shuffled=self.plan.shuffled)
        self._shares = Shares(ranks=self.ranks)
        self.ending = Ending(plan=self.plan, goals=self.goals, clock=self.clock)
        self.mean = MeanModel(model=self.model, layers=self.layers, ranks=self.ranks)
        self.codebooks = Codebooks(
            model=self.model,
            task=self.task,
            splits=self.splits,
            layers=self.layers,
            treated=() if self.without_vq else self.layers,
            plan=self.plan,
            optimizer=self.optimizer,
            shares=self._shares,
            say=self.say,
            note=lambda line: self.notes.append(line),
            pursuit=Pursuit(weighs=self.weighs),
        )

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The model's own optimizer."""
        return self.optimizers.main

    @property
    def bypassing(self) -> bool:
        """Whether the next epoch has no VQ: the whole training is without it, or begins without it."""
        return self.without_vq or len(self.rows) < self.plan.bypass_epochs

    def run(self, after_epoch: Callable[[Epoch], None] = lambda _: None) -> None:
        """Train until it is finished, and let the model be what the training gives; see `train_to`."""
        self.train_to(self.plan.epochs + self.plan.further_epochs, after_epoch)
        self.finish()

    def finish(self) -> None:
        """Let the model be the mean of its best epoch, or of the last one: no step follows."""
        if self.ending.result is not None:
            self._take_up(self.ending.result)
        self.mean.take()

    def train_to(self, epochs: int, after_epoch: Callable[[Epoch], None] = lambda _: None) -> None:
        """Train until it is finished, or has had that many epochs.

        After a non-finite loss the last finished epoch is taken up again at half the learning rate.

        Args:
            epochs: epochs in all.
            after_epoch: called with every epoch's row; what it raises ends the training there.

        Raises:
            UserError: if the loss does not stay finite.
        """
        self._start()
        good = self.state_dict()
        while not self.ending.finished and len(self.rows) < epochs:
            try:
                row = self._epoch(len(self.rows))
            except NotFinite as error:
                retries = self._retries + 1
                self.load_state_dict(good)
                self._retries = retries
                require_finite(self.model)
                if retries > RETRIES:
                    raise UserError(
                        f"the loss is not finite in epoch {len(self.rows) + 1}: {error}",
                        "lower the learning rate of the task's optimizer, or look for NaN in the data",
                    ) from None
                self.optimizers.rates = [[r / 2 for r in rates] for rates in self.optimizers.rates]
                self.notes.append(f"epoch {len(self.rows) + 1}: {error}; again at half the learning rate")
                good = self.state_dict()
                continue
            self.rows.append(row)
            self.codebooks.keep_up(row, cooling=self.ending.cooling)
            left: Mapping[str, Any] = self._left_behind()
            if (best := self.ending.after_epoch(row, left)) is not None:
                self._take_up(best)
                left = best
            good = self._state(left)
            after_epoch(row)

    def _start(self) -> None:
        if self.ranks.size > 1:
            batch = next(iter(self.splits.in_order()))
            if self._own is None:
                why = self._shares.prepare(self.model, self.task, batch, self.layers)
            else:
                why = self._shares.whole = "the task's own step trains it"
            told = f"each of {self.ranks.size} processes ran whole batches: {why}"
            self.notes += [told] if why and told not in self.notes else []
        if self._started:
            return
        self._started = True
        self.mixed = self.ranks.agreed(self._can_be_mixed())
        if self.plan.bypass_epochs == 0:
            self.codebooks.place()

    def _epoch(self, number: int) -> Epoch:
        if number == self.plan.bypass_epochs > 0:
            self.mean.restart()
            self.codebooks.place()
        later = number - self.plan.bypass_epochs
        self._held = self._leading() if 0 <= later < self.plan.frozen_epochs and not self.without_vq else []
        seed = self._stretches.seed(number)
        seed_all(seed)
        generator = torch.Generator().manual_seed(seed)
        self.model.train()
        factor = self.codebooks.pursuit.tightening * (later >= 0) * warm_up(later, self.plan.warm_up_epochs)
        self._weight = self.plan.vq_weight * factor
        self.optimizers.set_rates(self.ending.rate)
        losses: list[tuple[float, float | None]] = []
        taken = self.optimizers.taken
        with self.codebooks.reshaped(full_precision=self.plan.full_precision or self.mixed):
            for at, batch in enumerate(self._stretches.of(number, self.plan.steps)):
                self.codebooks.before_step()
                losses.append(self._step(at, batch, factor, generator))
            if self._own is not None:
                self._own.require_training(len(losses))
            elif losses and self.optimizers.taken == taken:
                raise UserError(
                    f"no step of epoch {number + 1} has finite gradients, so that none was taken",
                    "correct what makes them NaN or infinite in your source: `vqdoctor explain VQ107`",
                )
            self.ranks.same_buffers(self.model)
            fixed = self.splits.stop(self.plan.steps or None)
            with self.mean.instead():
                stop = evaluate(self.model, self.task, fixed, self.layers, self._bypassed)
        known = [vq for _, vq in losses if vq is not None]
        row = Epoch(
            epoch=number + 1,
            task_loss=sum(task for task, _ in losses) / max(len(losses), 1),
            vq_loss=sum(known) / len(known) if known else None,
            vq_weight=self._weight,
            revived=self.codebooks.take_revived(),
            stop=stop,
        )
        return self.ranks.agreed_value(row)

    def _leading(self) -> list[torch.nn.Parameter]:
        """Return the parameters that z_e depends on, which are held in the first epochs."""
        names = leading_to(self.model, self.task, next(iter(self.splits.in_order())), self.layers)
        return [p for name, p in self.model.named_parameters() if name in names]

    @property
    def _bypassed(self) -> Change | None:
        return bypass if self.bypassing else None

    def measure(
        self, split: Literal["val", "stop"] = "val", change: Change | None = None, most: int | None = None
    ) -> Measured | None:
        """Return the figures on a split, and each answer; every quoted figure comes from "val".

        Args:
            split: the split; of "stop" the batches are taken by which a training in steps is stopped.
            change: gives the tensor that the model gets in place of z_q.
            most: batches of "stop" at most.
        """
        stop = self.splits.stop(most or self.plan.steps or None)
        batches = self.splits.val() if split == "val" else stop
        full = self.plan.full_precision or self.mixed
        with self.mean.instead(), self.codebooks.reshaped(full_precision=full):
            return measure(self.model, self.task, batches, self.layers, change or self._bypassed)

    def figures(self) -> Figures | None:
        """Return the figures on the val split."""
        return None if (found := self.measure()) is None else found.figures

    def _losses(self, batch: Any) -> Losses:
        with torch.autocast(device_of(self.model).type, dtype=torch.bfloat16, enabled=self.mixed):
            return self.task.losses(self.model, batch)

    def _can_be_mixed(self) -> bool:
        """Whether bfloat16 is worth it; a note says where it is fast and something speaks against it."""
        if self._own is not None or not bfloat16_is_fast(device_of(self.model)):
            return False
        batch = next(iter(self.splits.in_order()))
        why = against_bfloat16(self.model, self.task, batch, self.layers, self._bypassed)
        if why is not None:
            self.notes.append(f"trained in float32: {why}")
        return why is None

    def _step(
        self, at: int, batch: Batch, factor: float, generator: torch.Generator
    ) -> tuple[float, float | None]:
        """Take a step on a batch, and return its task loss and its VQ loss.

        Args:
            at: the number of the batch in the epoch, from 0.
            batch: the batch.
            factor: of the VQ loss's weight in this epoch.
            generator: of what is drawn.
        """
        share = self._shares.of(batch)
        grafted = None if self.bypassing else grafts(self.plan)
        change: Change | None = self._bypassed or grafted
        if self._own is not None:
            change = weighed(self._relative_weight, change)
        with self._shares.watching(self.layers, change) as watched:
            found = self._losses(share) if self._own is None else self._own.take(share, self._held)
        if self._own is None and not self.bypassing:
            found = completed(found, self.layers, watched, self.plan)
            found = found if grafted is None else replace(found, vq=grafted.behind(found.vq))
            if at == 0 and (self.plan.balanced or self.plan.capped):
                z_e = [call.z_e for layer in self.layers for call in layer.calls(watched)]
                balanced = balanced_weight(found.task, found.vq, z_e, self._shares.sum_of_shares)
                most = math.inf if self.plan.balanced else self.plan.vq_weight
                self._weight = factor * min(most, balanced or self.plan.vq_weight)
        plain = self.bypassing
        loss = found.task if plain else weighted(found, self._weight, self.plan, self.layers, watched)
        total = self._shares.weight * loss
        told = (loss, found.task, torch.zeros(()) if found.vq is None else found.vq)
        value, task, vq = self._shares.added([self._shares.weight * float(part.detach()) for part in told])
        if not math.isfinite(value):
            raise NotFinite(f"{value:g} at batch {at + 1}")
        if self._own is None:
            further = [self._shares.weight * loss for loss in found.further]
            clip = self.plan.clip_norm
            self.optimizers.step(total, further, self._held, self.ranks.add_gradients, clip_norm=clip)
        self.steps += 1
        if not self.bypassing:
            self.codebooks.after_step(watched, generator, cooling=self.ending.cooling, mask=found.mask)
        self.ranks.same_codebooks(self.layers)
        self.mean.after_step()
        return task, None if found.vq is None else vq

    @property
    def _relative_weight(self) -> float:
        """The weight of the VQ loss, as a multiple of that in the task's own step."""
        trained = self.task.vq_weight
        if self.bypassing:
            return 0.0
        return self._weight / trained if trained and self.weighs else 1.0

    def state_dict(self) -> dict[str, Any]:
        """Return, as a copy, all that a resumed training needs."""
        return self._state(self._left_behind())

    def _state(self, left: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "started": self._started,
            "rows": [encode(row) for row in self.rows],
            "notes": list(self.notes),
            "mixed": self.mixed,
            "rates": [list(rates) for rates in self.optimizers.rates],
            "retries": self._retries,
            "ending": self.ending.state_dict(),
            "left": left,
        }

    def _left_behind(self) -> dict[str, Any]:
        """Return, as a copy, what the steps so far have changed."""
        return copy.deepcopy(
            {
                "model": self.model.state_dict(),
                "optimizers": self.optimizers.state_dict(),
                "mean": self.mean.state_dict(),
                "steps": self.steps,
                "task": None if self._own is None else self._own.state(),
                **self.codebooks.state_dict(),
            }
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a training up where `state_dict` left it."""
        self._started, self.mixed = state["started"], state["mixed"]
        self.rows = [decode(Epoch, row, "state", RESTART) for row in state["rows"]]
        self.notes, self._retries = list(state["notes"]), state["retries"]
        self.optimizers.rates = [list(rates) for rates in state["rates"]]
        self.ending.load_state_dict(state["ending"])
        self._take_up(state["left"])

    def _take_up(self, state: Mapping[str, Any]) -> None:
        """Go back to what the steps of an earlier epoch had changed."""
        # The versions of the modules' states do not outlast a file; they are those of this very model.
        tensors = OrderedDict(state["model"])
        tensors._metadata = self.model.state_dict()._metadata  # type: ignore[attr-defined]
        self.model.load_state_dict(tensors)
        self.optimizers.load_state_dict(copy.deepcopy(state["optimizers"]))
        self.mean.load_state_dict(state["mean"])
        self.steps = state["steps"]
        if self._own is not None:
            self._own.take_up(copy.deepcopy(state["task"]))
        self.codebooks.load_state_dict(state)
