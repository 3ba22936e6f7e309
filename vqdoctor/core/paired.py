"""Two models on the same samples: a retrained one, and the same model without VQ."""

from __future__ import annotations

from typing import ClassVar

from vqdoctor.core.frozen import frozen

TOLERANCE = 0.015
"""By how much the accuracy may stay behind the one without VQ: 1.5 points."""
MOST_DOUBT = 0.015
"""By how much it may seem to stay behind further, where its interval reaches the tolerance: the doubt that
some 850 samples leave where the two models differ on 5 % of them. A small split excuses no more."""


@frozen
class Paired:
    """Two models on the same samples: the retrained one, and the one without VQ.

    Attributes:
        samples: how many there are.
        gained: samples that only the retrained model has right.
        lost: samples that only the model without VQ has right.
        low: lower end of the 95 % interval of the difference of the accuracies.
        high: its upper end.
        ece_low: lower end of the 95 % interval of the difference of the calibration errors; None where it is
            unknown.
        ece_high: its upper end.
    """

    derived: ClassVar = ("difference",)
    samples: int
    gained: int
    lost: int
    low: float
    high: float
    ece_low: float | None = None
    ece_high: float | None = None

    @property
    def difference(self) -> float:
        """Accuracy of the retrained model less that of the one without VQ."""
        return (self.gained - self.lost) / self.samples

    @property
    def within(self) -> bool:
        """Whether the samples leave it open that the model is within the tolerance, and it seems near it."""
        return self.high >= -TOLERANCE and self.difference >= -TOLERANCE - MOST_DOUBT

    def calibrated(self, more: float) -> bool:
        """Whether the samples leave it open that the calibration error is no larger, and it seems near.

        Args:
            more: calibration error of the retrained model less that of the one without VQ.
        """
        return self.ece_low is not None and self.ece_low <= 0 and more <= MOST_DOUBT

    @property
    def behind(self) -> bool:
        """Whether the model has fewer right, beyond doubt."""
        return self.high < 0
