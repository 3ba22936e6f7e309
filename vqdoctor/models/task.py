"""The Task: a model, its data and its losses, as vqdoctor needs them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from vqdoctor.core.frozen import frozen

if TYPE_CHECKING:
    import torch

Split = Literal["train", "stop", "val"]
Batch = Any
"""A batch is opaque to vqdoctor: only the Task's own `losses` looks inside."""
LEARNING_RATE = 1e-3
"""Adam's, where neither the task nor the file has one."""


@frozen
class Losses:
    """The losses of one batch, each a scalar tensor with its graph.

    A Task may return any object with these fields.

    Attributes:
        task: the task loss, without the VQ loss.
        vq: the VQ loss, unweighted; None where the model has none.
        logits: class scores [batch, classes], or None.
        labels: class labels [batch], or None.
        mask: which positions of the VQ layers are data, [batch, …], True or 1; the others, such as padding,
            are left out of the measurements. None where all are data.
        further: losses of the task's further optimizers, as of a discriminator on the detached output.
    """

    task: torch.Tensor
    vq: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    further: tuple[torch.Tensor, ...] = ()


@runtime_checkable
class Task(Protocol):
    """A plain class or module-level object that satisfies this needs no base class.

    Optional: `optimizer(model) -> torch.optim.Optimizer`, or several of them, of which each after the first
    takes its step on its own loss in `Losses.further`; and `shuffled(seed) -> Iterable[Batch]`, the
    train batches of one epoch in a random order of that seed. A Task that serves no "stop" split has a
    tenth of "train" held back for early stopping; "val" is never used for it.

    A Task that must train each batch by itself, as a GAN may, has `step(model, batch)` in place of `losses`:
    it takes the optimizer steps and returns the losses. Then `optimizer` is not optional, and returns all
    optimizers that `step` uses. Each model gets a shallow copy of the Task with optimizers of its own. Where
    the step must not train, as in an examination, backward passes and optimizers do nothing. A Task that
    counts its steps has them kept with an unfinished run by `state_dict()` and `load_state_dict(state)`.

    Attributes:
        vq_weight: the weight that the user's training gave the VQ loss; None is unknown, never assumed.
    """

    vq_weight: float | None

    def model(self) -> torch.nn.Module:
        """Return the model, freshly built; the checkpoint is loaded into it."""

    def batches(self, split: Literal["train", "val"]) -> Iterable[Batch]:
        """Return the batches of a split, in the same order every time."""

    def losses(self, model: torch.nn.Module, batch: Batch) -> Losses:
        """Run the model on a batch and return its losses."""
