"""An examined model that can be retrained: any number of fresh copies of it are trained from one state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from vqdoctor.capture.layer import CapturedLayer, Watched, bypass, bypassable, passes
from vqdoctor.capture.placing import NOT_STORED, UNSEEN
from vqdoctor.core.retraining import Figures, Goals
from vqdoctor.core.settings import Settings
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.models.examined import ExaminedModel
from vqdoctor.models.task import Batch
from vqdoctor.models.untouched import same_randomness
from vqdoctor.probes.model import ModelContext
from vqdoctor.training.clock import Clock
from vqdoctor.training.evaluate import Measured, evaluate, measure, one_vector
from vqdoctor.training.mixing import is_in_order, is_of_samples
from vqdoctor.training.optimizer import SavedRecipe
from vqdoctor.training.own_steps import against_grafting, against_weighing, unable
from vqdoctor.training.ranks import Ranks
from vqdoctor.training.splits import Splits
from vqdoctor.training.start import restart
from vqdoctor.training.trainer import Trainer
from vqdoctor.training.treatment import ESTIMATORS, against_outer_estimators
from vqdoctor.training.without_vq import Candidate


@dataclass(frozen=True, kw_only=True, eq=False)
class Trainable:
    """An examined model with its VQ layers located, from which fresh copies are trained.

    Attributes:
        examined: the model, and where the file's tensors are in it.
        context: its layers, and copies of it on the device.
        recipe: the optimizer that the file describes, for a task without one.
        ranks: the processes that train it together.
        say: told what is being done.
        shuffles: whether the samples of train batches that come in a fixed order may be mixed.
    """

    examined: ExaminedModel
    context: ModelContext
    recipe: SavedRecipe | None = None
    ranks: Ranks = field(default_factory=Ranks)
    say: Callable[[str], None] = lambda _: None
    shuffles: bool = True

    @cached_property
    def splits(self) -> Splits:
        """The batches of the task, on the device."""
        task = self.context.task

        def models() -> Iterator[tuple[torch.nn.Module, list[torch.nn.Module]]]:
            with same_randomness(0):
                fresh = task.model().to(self.context.device)
            for model in (self.context.copy(training=False), fresh):
                yield model, [layer.module for layer in self.context.on(model)]

        def of_samples(batch: Batch) -> bool:
            return self.shuffles and all(is_of_samples(m, task, batch, held) for m, held in models())

        def in_order(batches: Sequence[Batch]) -> bool:
            return any(is_in_order(m, task, batches, held) for m, held in models())

        return Splits(task, self.context.device, of_samples, in_order)

    def trainer(
        self,
        plan: TrainingPlan,
        *,
        goals: Goals | None = None,
        without_vq: bool = False,
        clock: Clock | None = None,
        learned: Mapping[str, torch.Tensor] | None = None,
    ) -> Trainer:
        """Return the training of a fresh copy of the model.

        Args:
            plan: what is done.
            goals: what ends the training early.
            without_vq: whether the layers are bypassed, in a freshly built model.
            clock: the time that is left.
            learned: the state that a plan with the start "without-vq" begins with.

        Raises:
            UserError: if no VQ layer can be watched, or a fresh model is asked for and cannot be built.
        """
        plan = self.ranks.agreed_value(plan)
        model = self.context.copy(training=True)
        layers = self.context.on(model)
        start = "scratch" if without_vq else plan.start
        batch = next(iter(self.splits.in_order()))
        restart(model, self.context.task, batch, layers, start, plan.seed, learned)
        self.ranks.as_first((*model.parameters(), *model.buffers()))
        return Trainer(
            model=model,
            task=self.context.task,
            splits=self.splits,
            layers=layers,
            plan=plan,
            goals=goals,
            without_vq=without_vq,
            recipe=self.recipe,
            clock=clock or Clock(),
            ranks=self.ranks,
            say=self.say,
            weighs=not self.against_weighing,
        )

    @cached_property
    def measured_before(self) -> Measured | None:
        """The checkpoint as it is, on the val split."""
        model = self.context.copy(training=False)
        return measure(model, self.context.task, self.splits.val(), self.context.on(model))

    def bypassed(self, most: int | None = None) -> Candidate | None:
        """Return the checkpoint with z_e in place of its codes; None where the task has no samples.

        Args:
            most: batches of the split that stops the training, as many as a training looks at.
        """
        model, task = self.context.copy(training=False), self.context.task
        layers = self.context.on(model)
        val, one = (measure(model, task, self.splits.val(), layers, by) for by in (bypass, one_vector))
        if val is None or one is None:
            return None
        stop = evaluate(model, task, self.splits.stop(most), layers, bypass)
        return Candidate(val=val, one=one, stop=stop)

    @property
    def before(self) -> Figures | None:
        """Its figures."""
        return None if self.measured_before is None else self.measured_before.figures

    def needs_without_vq(self, goals: Goals) -> bool:
        """Whether a goal of the task comes from the same model without VQ, and the model runs so."""
        if self.before is None:
            return False
        given = goals.max_loss if self.before.accuracy is None else goals.min_accuracy
        return given is None and self.runs_without_vq

    @cached_property
    def against_weighing(self) -> str:
        """Why the VQ loss cannot be weighed; "" where it can, or the task has no step of its own."""
        task = self.context.task
        if not getattr(task, "trains_itself", False):
            return ""
        model = self.context.copy(training=True)
        batch = next(iter(self.splits.in_order()))
        return against_weighing(model, task, batch, self.context.on(model), self.context.seed)

    def unable(self, settings: Settings) -> dict[str, str]:
        """Return the remedies that a training of this task cannot take, each with the reason."""
        model, batch = self.context.copy(training=True), next(iter(self.splits.in_order()))
        layers, seed = self.context.on(model), self.context.seed
        why = against_outer_estimators(model, self.context.task, batch, layers, seed)
        found = dict.fromkeys(ESTIMATORS if why else (), why)
        if not getattr(self.context.task, "trains_itself", False):
            return found
        return found | unable(self.against_weighing, self._against_grafting, balanced=settings.balanced)

    @property
    def _against_grafting(self) -> str:
        """Why no estimator can be put behind the VQ layers; "" where it can."""
        model = self.context.copy(training=True)
        batch = next(iter(self.splits.in_order()))
        return against_grafting(model, self.context.task, batch, self.context.on(model), self.context.seed)

    @cached_property
    def unwritable(self) -> dict[str, str]:
        """The layers whose codes a training cannot place, each with the reason."""
        model = self.context.copy(training=False)
        layers, batch = self.context.on(model), next(iter(self.splits.in_order()))
        with torch.no_grad():
            _, _, watched = next(passes(model, self.context.task, (batch,), layers))
        whys = {layer.name: _why_not_placed(layer, watched) for layer in layers}
        return {name: why for name, why in whys.items() if why}

    @cached_property
    def runs_without_vq(self) -> bool:
        """Whether the model runs with z_e in place of z_q."""
        model = self.context.copy(training=False)
        batch = next(iter(self.splits.in_order()))
        return bypassable(model, self.context.task, batch, self.context.on(model))


def _why_not_placed(layer: CapturedLayer, watched: Watched) -> str:
    if not layer.view.writable:
        return NOT_STORED
    if layer.view.lookup != "logits" and layer.vectors(watched) is None:
        return UNSEEN
    return ""
