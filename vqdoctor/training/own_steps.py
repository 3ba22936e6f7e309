"""The training steps of a task that takes them itself, and what a training plan can still do to them.

Such a step adds up its losses and goes backward out of sight. The layers are at work in it all the same:
where they return the VQ loss, its gradient is scaled there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from vqdoctor.capture.call import Call
from vqdoctor.capture.layer import CapturedLayer, Change, watching
from vqdoctor.core.errors import UserError
from vqdoctor.models.task import Batch, Losses, Task
from vqdoctor.models.untouched import seed_all
from vqdoctor.remedies import all_remedies
from vqdoctor.training.optimizer import Optimizers
from vqdoctor.training.treatment import ESTIMATORS, Grafts

SUMMED = "the task's own step adds up the losses, which takes no further term and no weight by gradients"
NO_EXEMPTION = "the task's own step builds its optimizers, so that the codebook keeps their weight decay"
NO_STAND_IN = "the task's own step adds up the losses: no commitment loss stood in for one without a gradient"
UNTOLD = "the task has a step of its own, and no vq_weight of which the weight could be a multiple"
OUTSIDE = (
    "the task has a step of its own, and computes its VQ loss on what the VQ layer returns: an estimator "
    "there would turn the gradient of the codebook term against the encoder"
)
UNSEEN = "the task has a step of its own, and its VQ loss does not come from the VQ layers alone"


@dataclass(kw_only=True, eq=False)
class OwnSteps:
    """The steps of one training.

    Attributes:
        task: the task.
        model: the model in training.
        optimizers: its optimizers, as the task returned them.
        taken: optimizer steps that were taken.
    """

    task: Any
    model: torch.nn.Module
    optimizers: Optimizers
    taken: int = 0

    def __post_init__(self) -> None:
        """Refuse parameters that no state of the model keeps.

        Raises:
            UserError: if an optimizer has any.
        """
        known = {id(parameter) for parameter in self.model.parameters()}
        trained = [p for one in self.optimizers.all for group in one.param_groups for p in group["params"]]
        if not {id(parameter) for parameter in trained} <= known:
            raise UserError(
                "task.optimizer(model) returns an optimizer of parameters that the model does not have",
                "let model() return all that step() trains, such as a discriminator, in one module",
            )

    def take(self, batch: Batch, held: Iterable[torch.nn.Parameter]) -> Losses:
        """Let the task train the model on a batch.

        Args:
            batch: the batch.
            held: parameters that are not trained in this step.

        Raises:
            UserError: if the step fails, or another optimizer is used.
        """

        def before(optimizer: torch.optim.Optimizer, *_: object) -> None:
            if not any(optimizer is own for own in self.optimizers.all):
                raise UserError(
                    "task.step() uses an optimizer that task.optimizer(model) did not return for this model",
                    "keep them in optimizer(), as self.ours, self.theirs = …, and return them all",
                )
            self.taken += 1
            for parameter in held:
                parameter.grad = None

        hook = register_optimizer_step_pre_hook(before)
        try:
            found: Losses = self.task.step(self.model, batch)
        finally:
            hook.remove()
        return found

    def require_training(self, batches: int) -> None:
        """Refuse a step that trains nothing.

        Raises:
            UserError: if no optimizer took a step in all those batches.
        """
        if batches and not self.taken:
            raise UserError(
                f"task.step(model, batch) took no optimizer step in {batches} batches",
                "step the optimizers that task.optimizer(model) returns, or leave step() out",
            )

    def state(self) -> object:
        """Return the task's own state of this training, by its `state_dict`; None where it has none."""
        return self.task.state_of(self.model)

    def take_up(self, state: object) -> None:
        """Take up what `state` returned."""
        self.task.take_up(self.model, state)


def weighed(factor: float, change: Change | None = None) -> Change:
    """Return a change that scales the gradient of the losses that a layer returns, and makes another change.

    Args:
        factor: how much stronger the VQ loss pulls than in the user's own training.
        change: the other change; None makes none.
    """

    def change_both(layer: CapturedLayer, call: Call) -> torch.Tensor | None:
        for loss in call.losses:
            loss.register_hook(partial(torch.mul, factor))  # type: ignore[no-untyped-call]
        return None if change is None else change(layer, call)

    return change_both


def unable(weighs: str, grafts: str, *, balanced: bool) -> dict[str, str]:
    """Return the remedies that such a training cannot take, each with the reason.

    Args:
        weighs: why the VQ loss cannot be weighed; "" where it can.
        grafts: why no estimator can be put behind the layers; "" where it can.
        balanced: whether the user asks for a weight that follows the gradients.
    """
    found = {}
    for remedy in all_remedies():
        summed = remedy.in_loss == "sum" or (remedy.name == "lower-vq-weight" and balanced)
        if why := SUMMED if summed else weighs if remedy.in_loss else "":
            found[remedy.name] = why
    return {**found, **dict.fromkeys(ESTIMATORS if grafts else (), grafts)}


def against_grafting(
    model: torch.nn.Module, task: Task, batch: Batch, layers: tuple[CapturedLayer, ...], seed: int
) -> str:
    """Return why no estimator can be put behind the layers in the task's own step; "" where it can.

    A VQ loss outside of the layer is then computed on the estimator's output, and its codebook term drives
    z_e away from the codes (see `Grafts.behind`, which needs the VQ loss alone).

    Args:
        model: a copy of the model in train mode, which is changed.
        task: the task.
        batch: a train batch.
        layers: its VQ layers.
        seed: of all that is drawn.
    """
    seed_all(seed)
    change = Grafts(estimators={layer.name: "straight-through" for layer in layers})
    with watching(layers, change, keep_graph=True):
        vq = task.losses(model, batch).vq
    put = [new for _, new in change.put if new.requires_grad]
    if vq is None or not vq.requires_grad or not put:
        return ""
    pulls: Sequence[torch.Tensor | None] = torch.autograd.grad(vq, put, allow_unused=True)
    return OUTSIDE if any(pull is not None and pull.any() for pull in pulls) else ""


def against_weighing(
    model: torch.nn.Module, task: Task, batch: Batch, layers: tuple[CapturedLayer, ...], seed: int
) -> str:
    """Return why the VQ loss of the task's own step cannot be weighed at the layers; "" where it can.

    Args:
        model: a copy of the model in train mode, which is changed.
        task: the task.
        batch: a train batch.
        layers: its VQ layers.
        seed: of all that is drawn.
    """
    if not task.vq_weight:
        return UNTOLD
    seed_all(seed)
    with watching(layers, weighed(0.0), keep_graph=True) as watched:
        vq = task.losses(model, batch).vq
    calls = [call for layer in layers for call in layer.calls(watched)]
    if vq is None or not vq.requires_grad or not all(call.losses for call in calls):
        return UNSEEN
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    pulls: Sequence[torch.Tensor | None] = torch.autograd.grad(vq, trained, allow_unused=True)
    return UNSEEN if any(pull is not None and pull.any() for pull in pulls) else ""
