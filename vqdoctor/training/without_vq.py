"""The same model without VQ: what it shows of the task, trained as long or as the checkpoint has it."""

from __future__ import annotations

import math

from vqdoctor.core.frozen import frozen
from vqdoctor.core.retraining import Figures, Goals
from vqdoctor.core.skill import reachable_loss
from vqdoctor.training.evaluate import Measured, has_learned, is_worse


@frozen
class WithoutVQ:
    """The better one of two models without VQ; a run that trains no such model has None.

    One is freshly built and was trained without VQ. The other is the checkpoint with z_e in place of its
    codes, whose weights may know more than a short training can teach.

    Attributes:
        val: its figures on the val split.
        stop: its figures on the split that stops the training.
        reachable: the task loss that it shows to be possible with codes.
        bypassed: whether it is the checkpoint.
        unlearned: whether neither it nor the checkpoint has learned anything of the task or makes any use of
            z_e, and its loss fell no further.
        too_short: whether it was still learning when it ended, and is no better than the checkpoint or a
            guess: then it sets no goal.
        is_better: whether the trained one does the task better than the checkpoint, with its codes and with
            z_e in their place; None where it was too short.
    """

    val: Figures | None = None
    stop: Figures | None = None
    reachable: float | None = None
    bypassed: bool = False
    unlearned: bool = False
    too_short: bool = False
    is_better: bool | None = None

    @classmethod
    def of(
        cls, trained: Candidate, checkpoint: Candidate, with_codes: Measured, *, settled: bool
    ) -> WithoutVQ:
        """Compare the two.

        Args:
            trained: the freshly built model.
            checkpoint: the checkpoint without its codes.
            with_codes: the checkpoint as it is.
            settled: whether the training's loss fell no further.
        """
        bypassed = is_worse(trained.val, checkpoint.val)
        best = checkpoint if bypassed else trained
        if not all(map(math.isfinite, best.losses)):
            return cls()
        one = best.one.figures.loss
        learned, did_learn = (has_learned(known, one) for known in (best.val, with_codes))
        too_short = not (settled or bypassed) and (is_worse(best.val, with_codes) or not learned)
        is_better = all(is_worse(known, trained.val) for known in (with_codes, checkpoint.val))
        return cls(
            val=best.val.figures,
            stop=best.stop,
            reachable=reachable_loss(best.val.figures.loss, one),
            bypassed=bypassed,
            unlearned=settled and not (learned or did_learn),
            too_short=too_short,
            is_better=None if too_short else is_better,
        )

    def goals(self, given: Goals, tolerance: float, *, on_stop: bool = False) -> Goals:
        """Return the goals with what this model can do.

        Args:
            given: the goals that the user gave.
            tolerance: by how much the accuracy may stay behind.
            on_stop: for the split that stops the training, else for val.
        """
        return given if self.too_short else given.beside(self.stop if on_stop else self.val, tolerance)

    @property
    def least_loss(self) -> float:
        """The task loss that a cure must reach by this model; infinity where it sets no goal."""
        return math.inf if self.too_short or self.reachable is None else self.reachable


@frozen
class Candidate:
    """A model without VQ.

    Attributes:
        val: the model on the val split.
        one: the same with one mean vector in place of each z_e.
        stop: its figures on the split that stops the training; None without one.
    """

    val: Measured
    one: Measured
    stop: Figures | None

    @property
    def losses(self) -> list[float]:
        """Its task losses."""
        return [found.loss for found in (self.val.figures, self.one.figures, self.stop) if found is not None]
