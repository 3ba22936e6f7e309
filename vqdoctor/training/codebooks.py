"""The codebooks of a model in training: placed in the data, moved by what each step showed, kept near z_e."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from vqdoctor.capture.decay import set_decay
from vqdoctor.capture.layer import CapturedLayer, Watched
from vqdoctor.capture.placing import place_codes
from vqdoctor.core.retraining import Epoch
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.models.task import Task
from vqdoctor.models.untouched import seed_all
from vqdoctor.training.linear import LinearCodebook
from vqdoctor.training.moment_matching import MomentMatching
from vqdoctor.training.pursuit import PACE, Pursuit
from vqdoctor.training.revival import Revival
from vqdoctor.training.shares import Shares
from vqdoctor.training.sound_ema import SoundEMA, takes_directions
from vqdoctor.training.splits import Splits
from vqdoctor.training.treatment import reshaped


def is_moved_by_gradient(layer: CapturedLayer) -> bool:
    """Whether the optimizer moves a layer's codes: no EMA does, and they are the values that it looks up."""
    view, stored = layer.view, layer.stored()
    looked_up = view.writable and not (view.frozen or view.derived or view.lookup == "logits")
    return looked_up and view.counts is None and stored is not None and stored.requires_grad


@dataclass(kw_only=True, eq=False)
class Codebooks:
    """The measures of a training plan that act on the codebooks themselves.

    Attributes:
        model: the model, which is changed.
        task: its task.
        splits: the task's batches.
        layers: its VQ layers.
        treated: those that the plan acts on; none in a training without VQ.
        plan: what is done.
        optimizer: the model's own, whose moments of the written codes are cleared.
        shares: this process's share of the batches.
        say: told what is being done.
        note: told what could not be done, and what was done unasked, one line each.
        pursuit: whether the codes keep up with z_e.
    """

    model: torch.nn.Module
    task: Task
    splits: Splits
    layers: tuple[CapturedLayer, ...]
    treated: tuple[CapturedLayer, ...]
    plan: TrainingPlan
    optimizer: torch.optim.Optimizer
    shares: Shares
    say: Callable[[str], None]
    note: Callable[[str], None]
    pursuit: Pursuit = field(default_factory=Pursuit)
    _revivals: list[Revival] = field(init=False, default_factory=list)
    _linear: list[LinearCodebook] = field(init=False, default_factory=list)
    _sound: list[SoundEMA] = field(init=False, default_factory=list)
    _matching: list[MomentMatching] = field(init=False, default_factory=list)
    _directions: tuple[CapturedLayer, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        """Set up what goes along with the steps."""
        if self.plan.revive_under > 0:
            self._revivals = [
                Revival(layer=layer, threshold=self.plan.revive_under) for layer in self.treated
            ]
        if self.plan.decay is not None:
            for layer in self.treated:
                if not set_decay(layer, self.plan.decay):
                    self.note(f"{layer.name} has no EMA decay that could be set")
        if self.plan.moment_matching:
            self._matching = [MomentMatching(layer) for layer in self.treated if layer.view.writable]
        if self.plan.sound_ema:
            self._take_over([layer.name for layer in self.treated], self.plan.decay)

    def place(self) -> None:
        """Put the codebooks where the plan has them before the first step with VQ."""
        if self.plan.data_init and self.treated:
            for name, why in self._by_k_means(self.layers).items():
                self.note(f"{name} was not initialised from data: {why}")
            self._lead_on()
        if self.plan.linear and self.treated:
            self._linear = self._matrices()

    def _by_k_means(self, layers: tuple[CapturedLayer, ...]) -> dict[str, str]:
        """Place codebooks in the data, and return those that were not, each with the reason."""
        seed_all(self.plan.seed)
        generator = torch.Generator().manual_seed(self.plan.seed)
        with reshaped(self._directions, "sphere", full_precision=False):
            return place_codes(
                self.model,
                self.task,
                lambda: map(self.shares.of, self.splits.in_order()),
                layers,
                self.optimizer,
                generator,
                self.say,
                self.shares.gathered,
            )

    def _lead_on(self) -> None:
        """Let an EMA move the codes that a gradient moves, which stay behind z_e.

        Measured on motion windows (fault bench, seed 909, models 119 and 130, 50 epochs at most): accuracy
        0.791 and 0.782 with codes moved by a gradient, 0.878 and 0.851 by an EMA, 0.860 and 0.848 without VQ.
        """
        names = [layer.name for layer in self.treated if is_moved_by_gradient(layer)]
        if names and not self.plan.linear:
            self._take_over(names, self.plan.decay)
            self.note(
                f"an EMA moved the codes of {', '.join(names)} in this retraining, where your source leaves "
                "them to the optimizer"
            )

    def _take_over(self, names: Collection[str], decay: float | None) -> None:
        """Let a sound EMA move the codes of these layers; None is the layer's own decay."""
        taken = [sound.layer.name for sound in self._sound]
        new = [layer for layer in self.layers if layer.name in {*names} - {*taken} and layer.view.writable]
        if new:
            self._sound += [SoundEMA.of(layer, decay) for layer in new]
            batch = next(iter(self.splits.in_order()))
            self._directions += takes_directions(self.model, self.task, batch, tuple(new))

    def _matrices(self) -> list[LinearCodebook]:
        rate = float(self.optimizer.param_groups[0]["lr"])
        return [LinearCodebook(layer, rate) for layer in self.layers if layer.view.writable]

    @contextlib.contextmanager
    def reshaped(self, *, full_precision: bool) -> Iterator[None]:
        """Give the layers the inputs of the plan's geometry while the context lasts.

        Args:
            full_precision: whether the layers run in float32.
        """
        # Layers that take directions do so either way; here their calls show what is looked up.
        with (
            reshaped(self.treated, self.plan.geometry, full_precision=full_precision),
            reshaped(self._directions, "sphere", full_precision=False),
        ):
            yield

    def before_step(self) -> None:
        """Remember what the forward pass will overwrite."""
        for sound in self._sound:
            sound.before_step()

    def after_step(
        self,
        watched: Watched,
        generator: torch.Generator,
        *,
        cooling: bool,
        mask: torch.Tensor | None = None,
    ) -> None:
        """Move the codebooks by what a step showed.

        Args:
            watched: what the layers did.
            generator: of what is drawn.
            cooling: whether it is a step of the cool-down, in which no code jumps.
            mask: the task's mask of the batch: no code is revived for padding.
        """
        for sound in self._sound:
            sound.after_step(watched)
        for revival in () if cooling else self._revivals:
            revival.after_step(watched, self.optimizer, generator, mask=mask)
        for matching in () if cooling else self._matching:
            matching.after_step(watched)
        for linear in self._linear:
            linear.after_step(watched)
        for layer in self.layers if self.plan.geometry == "sphere" else ():
            if layer.view.writable:
                codes = torch.nn.functional.normalize(layer.codes(), dim=1)
                layer.write(torch.arange(layer.num_codes), codes)

    def keep_up(self, row: Epoch, *, cooling: bool) -> None:
        """Where z_e ran away from the codes, place these anew, let them follow, and hold z_e by the weight.

        While the weight warms up, z_e is free on purpose, and in the cool-down nothing is changed any more.
        """
        warm = row.epoch > self.plan.bypass_epochs + self.plan.warm_up_epochs
        if not self.treated or not (warm and self.plan.data_init) or self._linear or cooling:
            return
        if lost := self.pursuit.left_behind(row.stop):
            self._by_k_means(tuple(layer for layer in self.layers if layer.name in lost))
            self._take_over(lost, PACE)
            for sound in self._sound:
                sound.decay = min(sound.decay, PACE) if sound.layer.name in lost else sound.decay
            self.note(self.pursuit.told(row, lost))

    @property
    def led(self) -> tuple[str, ...]:
        """The layers whose codes an EMA of this training moves, in place of the source's own way."""
        return tuple(sound.layer.name for sound in self._sound)

    def take_revived(self) -> int:
        """Return how many codes were revived since this was last asked."""
        return sum(revival.take() for revival in self._revivals)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs, beside the model's own."""
        return {
            "pursuit": self.pursuit.state_dict(),
            "revivals": [revival.state_dict() for revival in self._revivals],
            "linear": [linear.state_dict() for linear in self._linear],
            "sound": {sound.layer.name: sound.state_dict() for sound in self._sound},
            "matching": [matching.state_dict() for matching in self._matching],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned; the model has its state already."""
        self.pursuit.load_state_dict(state["pursuit"])
        for revival, kept in zip(self._revivals, state["revivals"], strict=True):
            revival.load_state_dict(copy.deepcopy(kept))
        self._sound = [sound for sound in self._sound if sound.layer.name in state["sound"]]
        self._take_over(state["sound"], PACE)
        for sound in self._sound:
            sound.load_state_dict(copy.deepcopy(state["sound"][sound.layer.name]))
        for matching, kept in zip(self._matching, state["matching"], strict=True):
            matching.load_state_dict(copy.deepcopy(kept))
        if state["linear"]:
            self._linear = self._matrices()
            for linear, kept in zip(self._linear, state["linear"], strict=True):
                linear.load_state_dict(kept)
