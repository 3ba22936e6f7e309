"""The same model without VQ, trained as long: what it shows of the task."""

from __future__ import annotations

import math

from vqdoctor.core.frozen import frozen
from vqdoctor.core.retraining import Figures, Goals, reachable_loss
from vqdoctor.training.evaluate import Measured, has_learned, is_worse, one_vector
from vqdoctor.training.trainer import Trainer


@frozen
class WithoutVQ:
    """The model without VQ after its training; nothing is known of one that was not trained.

    Attributes:
        val: its figures on the val split.
        stop: its figures on the split that stops the training.
        reachable: the task loss that it shows to be possible with codes.
        unlearned: whether neither it nor the checkpoint has learned anything of the task or makes any use of
            z_e, and its loss fell no further.
        too_short: whether it was still learning when it ended, and is no better than the checkpoint or a
            guess: then it sets no goal.
        is_better: whether it does the task better than the checkpoint; None where it was too short.
    """

    val: Figures | None = None
    stop: Figures | None = None
    reachable: float | None = None
    unlearned: bool = False
    too_short: bool = False
    is_better: bool | None = None

    @classmethod
    def after(cls, trainer: Trainer, measured: Measured | None, checkpoint: Measured | None) -> WithoutVQ:
        """Return the findings of a finished training.

        Args:
            trainer: that training.
            measured: its model on the val split.
            checkpoint: the checkpoint on the same split.
        """
        stop = trainer.rows[-1].stop if trainer.rows else None
        one = trainer.measure(change=one_vector)
        if measured is None or one is None or not all(map(_is_finite, (measured.figures, one.figures, stop))):
            return cls()
        settled = trainer.ending.settled(trainer.rows)
        learned, did_learn = (
            known is None or has_learned(known, one.figures.loss) for known in (measured, checkpoint)
        )
        behind = checkpoint is not None and is_worse(measured, checkpoint)
        too_short = not settled and (behind or not learned)
        is_better = checkpoint is not None and is_worse(checkpoint, measured)
        return cls(
            val=measured.figures,
            stop=stop,
            reachable=reachable_loss(measured.figures.loss, one.figures.loss),
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


def _is_finite(figures: Figures | None) -> bool:
    return figures is None or math.isfinite(figures.loss)
