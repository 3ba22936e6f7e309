"""An examined model that can be retrained: any number of fresh copies of it are trained from one state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from vqdoctor.capture.codebook import LiveCodebook
from vqdoctor.core.errors import UserError
from vqdoctor.core.retraining import Figures, Goals
from vqdoctor.core.training_plan import TrainingPlan
from vqdoctor.models.examined import ExaminedModel
from vqdoctor.probes.model import ModelContext
from vqdoctor.training.evaluate import evaluate
from vqdoctor.training.layer import Layer, bypassable
from vqdoctor.training.splits import Splits
from vqdoctor.training.start import restart
from vqdoctor.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True, eq=False)
class Trainable:
    """An examined model with its VQ layers located, from which fresh copies are trained.

    Attributes:
        examined: the model, and where the file's tensors are in it.
        context: its layers, and copies of it on the device.
        say: told what is being done.
    """

    examined: ExaminedModel
    context: ModelContext
    say: Callable[[str], None] = lambda _: None

    @cached_property
    def splits(self) -> Splits:
        """The batches of the task, on the device."""
        return Splits(self.context.task, self.context.device)

    def trainer(self, plan: TrainingPlan, *, goals: Goals | None = None, without_vq: bool = False) -> Trainer:
        """Return the training of a fresh copy of the model.

        Raises:
            UserError: if no VQ layer can be watched, or a fresh model is asked for and cannot be built.
        """
        model = self.context.copy(training=True)
        layers = self.layers(model)
        start = "scratch" if without_vq else plan.start
        restart(model, self.context.task, next(iter(self.splits.in_order())), layers, start, plan.seed)
        return Trainer(
            model=model,
            task=self.context.task,
            splits=self.splits,
            layers=layers,
            plan=plan,
            goals=goals,
            without_vq=without_vq,
            say=self.say,
        )

    def layers(self, model: torch.nn.Module) -> tuple[Layer, ...]:
        """Return the VQ layers of a copy of the model.

        Raises:
            UserError: if none of them shows its z_e and z_q.
        """
        located = {name: place for name, place in self.context.located.items() if place.maps}
        if not located:
            raise UserError(
                "no VQ layer can be watched in the model", "retraining needs a module from z_e to z_q"
            )
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        names = {raw: name for name, raw in self.examined.raw_keys.items()}
        found = []
        for view in self.context.views:
            if view.name in located:
                place = located[view.name]
                held = {role: names[key] for role, key in view.keys.items() if names.get(key) in tensors}
                found.append(
                    Layer(
                        name=view.name,
                        module=model.get_submodule(place.path),
                        lookup=None if place.lookup is None else model.get_submodule(place.lookup),
                        codebook=LiveCodebook(
                            view=view, tensors={role: tensors[name] for role, name in held.items()}
                        ),
                        reader=self.context.readers[view.name],
                    )
                )
        return tuple(found)

    @cached_property
    def before(self) -> Figures | None:
        """The figures of the checkpoint as it is, on the val split."""
        model = self.context.copy(training=False)
        return evaluate(model, self.context.task, self.splits.val(), self.layers(model))

    @cached_property
    def runs_without_vq(self) -> bool:
        """Whether the task tells an accuracy, and the model runs without its VQ layers."""
        if self.before is None or self.before.accuracy is None:
            return False
        model = self.context.copy(training=False)
        batch = next(iter(self.splits.in_order()))
        return bypassable(model, self.context.task, batch, self.layers(model))
