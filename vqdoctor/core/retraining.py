"""A retraining as plain values: its goals, its epochs and its result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field, replace
from functools import partial
from typing import ClassVar, Literal

from vqdoctor.core.frozen import frozen
from vqdoctor.core.option import GOALS, number, option
from vqdoctor.core.paired import Paired
from vqdoctor.core.skill import SKILL
from vqdoctor.core.training_plan import TrainingPlan


@frozen
class LayerFigures:
    """The usage of one layer.

    Attributes:
        num_codes: K.
        vectors: how many vectors were quantized.
        used: codes chosen at least once.
        active: codes above 0.1/K of the usage.
        expected_active: codes that uniform usage would show as active on this number of vectors.
        perplexity: Grassberger's estimate, in codes.
        rest_perplexity: perplexity of the other codes, by the plain entropy, where one stands far above them
            and they are used evenly (see VQ511); active codes are then counted by the share of these. Else
            None.
        quantiles: quantiles of the sorted counts, for a picture of the usage.
        error: mean squared distance of z_e to its codes, as a share of the variance of z_e; None if unseen.
    """

    num_codes: int
    vectors: int
    used: int
    active: int
    expected_active: float
    perplexity: float
    rest_perplexity: float | None = None
    quantiles: tuple[float, ...] = ()
    error: float | None = None

    @property
    def active_share(self) -> float:
        """Active codes, as a share of the active codes of uniform usage on the same number of vectors."""
        return min(1.0, self.active / self.expected_active) if self.expected_active else 0.0


@frozen
class Figures:
    """The figures of a model on one split.

    Attributes:
        loss: mean task loss per sample.
        samples: samples of the split.
        accuracy: share of right labels; None where the task has no labels.
        ece: expected calibration error; None where the task has no labels.
        chance: share of the most frequent label, which a guess has right; None where the task has no labels.
        balanced_skill: least skill where each class counts alike; None where the task has no labels.
        layers: layer to its usage; layers whose codes are unknown are left out.
    """

    loss: float
    samples: int
    accuracy: float | None = None
    ece: float | None = None
    chance: float | None = None
    balanced_skill: float | None = None
    layers: Mapping[str, LayerFigures]

    @property
    def least_accuracy(self) -> float:
        """The accuracy under which a model has learned nothing of its task: no retraining of it is a cure.

        None is needed of a model that tells each class from the others, be they as rare as they may.
        """
        if self.chance is None or (self.balanced_skill or 0.0) >= SKILL:
            return 0.0
        return self.chance + SKILL * (1 - self.chance)

    @property
    def has_learned(self) -> bool:
        """Whether the accuracy is above a guess; without labels that is taken for granted."""
        return self.accuracy is None or self.accuracy >= self.least_accuracy


@frozen
class Epoch:
    """One epoch.

    Attributes:
        epoch: from 1.
        task_loss: mean task loss of the training batches.
        vq_loss: their mean VQ loss, unweighted; None where the task has none.
        vq_weight: the weight that it had.
        revived: codes revived in the epoch.
        stop: the figures on the split that stops the training; None without one.
    """

    epoch: int
    task_loss: float
    vq_loss: float | None
    vq_weight: float
    revived: int
    stop: Figures | None


Ended = Literal["", "goals", "plateau", "time", "epochs", "budget", "source", "nothing", "unlearned"]
"""Why a training ended: the goals held, the task loss fell no further, the minutes were over, or all epochs
were done ("budget": while it still fell); or why none with VQ began: the cause is in the user's source, no
finding asks for a training and all goals hold, or the same model learns nothing without VQ either."""
STOPPING = "interrupted: measuring and writing the best whole epoch so far"
"""The work of a run after an interruption, which takes as long as an examination."""
MAX_ECE = 0.05
"""Expected calibration error that is good enough, whatever it is without VQ."""


@frozen
class Goal:
    """One goal, compared with what was measured.

    Attributes:
        name: what is measured: "perplexity", "usage", "accuracy", "ece" or "loss".
        layer: the layer; None for the whole model.
        value: what was measured.
        limit: what it is compared with.
        met: whether it is met.
        paired: of an accuracy that is compared with the one without VQ, sample by sample: the difference and
            its interval, by which it is met too.
    """

    name: str
    layer: str | None
    value: float
    limit: float
    met: bool
    paired: Paired | None = None


_goal = partial(option, group=GOALS, commands=("fix",))
_SHARE = number("F", most=1.0)


@frozen
class Goals:
    """The goals of a retraining.

    Attributes:
        min_perplexity: of every layer, in codes; None is a fifth of its K, 51 of 256.
        min_usage: active codes of every layer, as a share of the active codes of uniform usage.
        min_accuracy: on the split; None if the accuracy without VQ is unknown.
        max_ece: expected calibration error; None is 0.05, or that without VQ where it is larger.
        max_loss: task loss; None is any where the task has labels, else that of the checkpoint, or less: what
            the model without VQ leaves to the codes (see `reachable_loss`).
    """

    min_perplexity: float | None = _goal(
        None, number("N"), "Perplexity of every VQ layer.", shown="a fifth of its codes"
    )
    min_usage: float = _goal(0.4, _SHARE, "Active codes, as a share of those to expect.")
    min_accuracy: float | None = _goal(
        None, _SHARE, "Accuracy.", shown="the accuracy of the model trained without VQ, less 0.015"
    )
    max_ece: float | None = _goal(
        None, _SHARE, "Expected calibration error.", shown="0.05, or that without VQ where it is larger"
    )
    max_loss: float | None = _goal(
        None,
        number("N"),
        "Task loss.",
        shown="without labels that of the checkpoint, or near that without VQ",
    )

    def beside(self, without_vq: Figures | None, tolerance: float) -> Goals:
        """Return the goals with what is left to the model without VQ: the accuracy, and the calibration.

        Args:
            without_vq: the figures of that model; None where it was not trained.
            tolerance: by how much the accuracy may stay behind.
        """
        accuracy, ece = self.min_accuracy, self.max_ece
        if without_vq is not None and accuracy is None and without_vq.accuracy is not None:
            accuracy = without_vq.accuracy - tolerance
        if without_vq is not None and ece is None and without_vq.ece is not None:
            ece = max(MAX_ECE, without_vq.ece)
        return replace(self, min_accuracy=accuracy, max_ece=ece)

    def no_worse_than(self, before: Figures | None, reachable: float = math.inf) -> Goals:
        """Return the goals with a limit of the task loss, where the task has no labels.

        Args:
            before: the figures of the checkpoint.
            reachable: the loss that the model without VQ shows to be possible; infinity where it is unknown.
        """
        if before is None or before.accuracy is not None or self.max_loss is not None:
            return self
        known = [loss for loss in (before.loss, reachable) if math.isfinite(loss)]
        return replace(self, max_loss=min(known, default=None))

    def compare(self, figures: Figures, paired: Paired | None = None) -> tuple[Goal, ...]:
        """Return every goal for which there is a figure.

        Args:
            figures: what was measured.
            paired: the comparison with the model without VQ, where the accuracy to reach comes from it.
        """
        found = []
        for name, layer in figures.layers.items():
            wanted = layer.num_codes / 5 if self.min_perplexity is None else self.min_perplexity
            goal = _at_least("perplexity", name, layer.perplexity, min(wanted, layer.num_codes))
            if not goal.met and layer.rest_perplexity is not None and self.min_perplexity is None:
                goal = _at_least("perplexity", name, layer.rest_perplexity, goal.limit)
            found.append(goal)
            found.append(_at_least("usage", name, layer.active_share, self.min_usage))
        if figures.accuracy is not None and self.min_accuracy is not None:
            least = self.min_accuracy
            if paired is not None:  # a model without VQ that has learned nothing sets no goal
                least = max(least, figures.least_accuracy)
            goal = _at_least("accuracy", None, figures.accuracy, least)
            near = paired is not None and paired.within and figures.has_learned
            found.append(replace(goal, met=goal.met or near, paired=paired))
        if figures.ece is not None:
            limit = MAX_ECE if self.max_ece is None else self.max_ece
            near = paired is not None and limit > MAX_ECE and paired.calibrated(figures.ece - limit)
            met = figures.ece <= limit or near
            found.append(Goal(name="ece", layer=None, value=figures.ece, limit=limit, met=met))
        if self.max_loss is not None:
            met = figures.loss <= self.max_loss
            found.append(Goal(name="loss", layer=None, value=figures.loss, limit=self.max_loss, met=met))
        return tuple(found)

    def met(self, figures: Figures) -> bool:
        """Whether all goals are met, of which there must be one."""
        compared = self.compare(figures)
        return bool(compared) and all(goal.met for goal in compared)

    def hold(self, figures: Figures) -> bool:
        """Whether all goals are met by a model that has learned its task."""
        return self.met(figures) and figures.has_learned

    def attained(self, figures: Figures) -> float:
        """Return how far the goals are reached, from 0 to 1: the mean share of each, none above 1."""
        compared = self.compare(figures)
        if not compared:
            return 0.0
        shares = []
        for goal in compared:
            least_is_best = goal.name in ("ece", "loss") and goal.value > 0
            part, whole = (goal.limit, goal.value) if least_is_best else (goal.value, goal.limit)
            shares.append(min(1.0, max(0.0, part / whole)) if whole > 0 else 1.0)
        return sum(shares) / len(shares)


def _at_least(name: str, layer: str | None, value: float, limit: float) -> Goal:
    return Goal(name=name, layer=layer, value=value, limit=limit, met=value >= limit)


@frozen
class Price:
    """How one more remedy changed the plan's figures, after as many epochs and on the same split.

    Attributes:
        epochs: how many epochs with VQ both had had.
        loss: change of the task loss.
        accuracy: change of the accuracy; None where the task has no labels.
        perplexity: change of the perplexity, of several layers that of the lowest; None without any.
    """

    epochs: int
    loss: float
    accuracy: float | None = None
    perplexity: float | None = None


@frozen
class Arm:
    """One way of retraining that was tried for a few epochs.

    Attributes:
        name: the remedies in it, or what it is: "as it was", "the plan", "a random choice", "fresh start".
        remedies: their names.
        epochs: how many epochs with VQ it was given before it was dropped or won.
        figures: its result on the split that stops the training.
        chosen: whether the long run goes this way.
        price: of the plan with one more remedy, its figures less those of the plan; None for other arms.
    """

    name: str
    remedies: tuple[str, ...]
    epochs: int
    figures: Figures
    chosen: bool = False
    price: Price | None = None


@frozen
class SourceChange:
    """A change by a retraining that the user's source lacks, and still needs.

    Attributes:
        why: the gap of the source and its position, as one sentence.
        code: the lines to write.
        codes: the findings that stay, or come back with the next training, until they are written.
    """

    why: str
    code: str
    codes: tuple[str, ...] = ()


@frozen
class Retraining:
    """A whole retraining.

    Attributes:
        plan: what was done.
        epochs: the epochs, in order.
        result: the number of the epoch whose weights are the result; None before the first epoch.
        before: the figures of the checkpoint on the val split.
        after: the figures of the written checkpoint, on the same split.
        without_vq: those of the same model without VQ, trained as long; None where it was not trained.
        bypassed: whether `without_vq` is of the checkpoint with z_e in place of its codes, which is better.
        goals: the goals, compared with `after`; or with `before`, if nothing was trained.
        trial: what was tried before the long run; empty without a trial.
        source: what is left to change in the user's source.
        split: the split that before, after and without_vq come from.
        ended: why it ended.
        interrupted: whether it was ended before its time.
        too_short: whether the model without VQ was still learning when it ended, and is no better than the
            checkpoint or a guess: it sets no goal, and no cure can be told without one.
        worse: whether it does its task worse than the checkpoint: by accuracy, without labels by the loss.
        written: whether the output was written.
        processes: how many trained it together, as torchrun started them.
        seconds: how long it took; a resumed run counts what it ran itself.
    """

    derived: ClassVar = ("cured",)
    plan: TrainingPlan = field(metadata={"json": "course"})
    epochs: tuple[Epoch, ...]
    before: Figures | None
    after: Figures | None
    without_vq: Figures | None = None
    result: int | None = None
    bypassed: bool = False
    goals: tuple[Goal, ...] = ()
    trial: tuple[Arm, ...] = ()
    source: tuple[SourceChange, ...] = ()
    split: str = "val"
    ended: Ended = ""
    interrupted: bool = False
    too_short: bool = False
    worse: bool = False
    written: bool = True
    processes: int = 1
    seconds: float = 0.0

    @property
    def goals_met(self) -> bool:
        """Whether all goals are met, of which there must be one."""
        return bool(self.goals) and all(goal.met for goal in self.goals)

    @property
    def needless(self) -> bool:
        """Whether nothing was trained, as all goals held before."""
        return self.ended in ("source", "nothing") and self.goals_met

    @property
    def cured(self) -> bool:
        """Whether the model was retrained long enough, all goals are met, and it does its task no worse."""
        return self.after is not None and self.goals_met and not (self.worse or self.too_short)
