"""What the user may set about an examination, a repair and a retraining."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vqdoctor.core.errors import UserError
from vqdoctor.core.retraining import Goals


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of an examination; the defaults are those of the command line.

    Attributes:
        select: codes of checks to run, or beginnings of codes ("VQ5"); empty is all.
        ignore: codes of checks to leave out, or beginnings of codes.
        limits: changed limits, by code and name.
        verify: whether to read and check every byte of the file.
        seed: seed of everything that is drawn.
        layer: examine only the VQ layer of this name.
        codebook_key: take this tensor as a codebook.
        orientation: "kd" or "dk" where the guess is wrong.
        histogram: whether the report carries the usage of every code.
        device: "auto", "cpu", "cuda" or "mps".
        batches: how many batches of a split are run; None is 4 for gradients and, for usage, all of a
            batch file or 64 of a user's own task.
        probe_steps: training steps to take on a copy of the model for a look at the dynamics; 0 is none.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    limits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    verify: bool = False
    seed: int = 0
    layer: str | None = None
    codebook_key: str | None = None
    orientation: Literal["kd", "dk"] | None = None
    histogram: bool = False
    device: str = "auto"
    batches: int | None = None
    probe_steps: int = 0


@dataclass(frozen=True, kw_only=True)
class UserModel:
    """What a user brings for a live examination. Code is named by the user alone, never by a file.

    Attributes:
        task: a Task, or where to import one: "pkg.module:name" or "file.py:name".
        model: a model, a function that builds one, where to import it, or "hf"; it needs a batch with x.
        model_args: arguments of that function.
        losses: losses(model, batch) of that model, for a batch of any kind.
        optimizer: the optimizer of a live model.
        vq_loss: the model's output that is the VQ loss, where the guess is wrong.
        task_loss: "ce", "mse", or the model's output that is the task loss.
        trained_vq_weight: the weight that the training gave the VQ loss, where the task does not say.
    """

    task: Any = None
    model: Any = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    losses: Any = None
    optimizer: Any = None
    vq_loss: str | None = None
    task_loss: str | None = None
    trained_vq_weight: float | None = None

    @property
    def runs(self) -> bool:
        """Whether there is a model to run."""
        return self.task is not None or self.model is not None

    def __post_init__(self) -> None:
        """Refuse what would be ignored.

        Raises:
            UserError: if an option is given without what it is for.
        """
        if self.task is not None and isinstance(self.model, str):
            raise UserError("--task and --model: a task brings its own model", "leave one of them out")
        if self.losses is not None and (self.model is None or self.task is not None):
            raise UserError("losses= is for a model without a task", "give the model, and the batch")
        made = self.model is not None and self.task is None and self.losses is None
        for option, value in (
            ("--model-arg", self.model_args),
            ("--vq-loss", self.vq_loss),
            ("--task-loss", self.task_loss),
        ):
            if value and not made:
                raise UserError(f"{option} says nothing without --model", "a Task states its own losses")


@dataclass(frozen=True, kw_only=True)
class RepairSettings:
    """What the user may set about a repair; the defaults are those of the command line.

    Attributes:
        only: names of remedies to apply, and no others; empty is the plan's.
        skip: names of remedies to leave out.
        unsafe: whether remedies that change trained weights are applied.
        dry_run: whether nothing is written.
        overwrite: whether the output may exist already.
    """

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    unsafe: bool = False
    dry_run: bool = False
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class RetrainSettings:
    """What the user may set about a retraining; the defaults are those of the command line.

    Attributes:
        epochs: at most this many passes over the train split; None is 50, or what a remedy needs.
        vq_weight: weight of the VQ loss; None is 0.1.
        balanced: whether the weight follows the gradients instead.
        warm_up_epochs: epochs over which the weight grows.
        goals: what counts as cured; without `min_accuracy` it is measured by training without VQ.
        only: names of remedies to apply, and no others; empty is the plan and the recipe.
        skip: names of remedies to leave out.
        trial: whether the remedies are tried against each other first.
        resume: whether to go on with an unfinished run.
        overwrite: whether the output may exist already.
    """

    epochs: int | None = None
    vq_weight: float | None = None
    balanced: bool = False
    warm_up_epochs: int = 10
    goals: Goals = field(default_factory=Goals)
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    trial: bool = False
    resume: bool = False
    overwrite: bool = False
