"""A budget in minutes, held by the clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(kw_only=True, eq=False)
class Clock:
    """The seconds that a training has left, looked at after each epoch.

    Attributes:
        ends: when it must be over, as `time.monotonic` tells it; infinity is never.
        agree: gives rank zero's answer to all processes of a training.
    """

    ends: float = math.inf
    agree: Callable[[bool], bool] = lambda allowed: allowed
    _begun: float = field(default_factory=time.monotonic)
    _epochs: int = 0

    @classmethod
    def within(cls, minutes: float | None, begun: float, kept: float, agree: Callable[[bool], bool]) -> Clock:
        """Return the clock of a budget.

        Args:
            minutes: of the whole run; None is without a limit.
            begun: when the run began.
            kept: seconds that the work after the training needs.
            agree: see the class.
        """
        return cls() if minutes is None else cls(ends=begun + 60 * minutes - kept, agree=agree)

    def share(self, part: float) -> Clock:
        """Return the clock of a training that gets a part of what is left."""
        now = time.monotonic()
        return Clock(ends=now + part * (self.ends - now), agree=self.agree)

    def tick(self) -> None:
        """Take an epoch into account that has just ended."""
        self._epochs += 1

    def allows(self, epochs: int) -> bool:
        """Whether as many more epochs as these fit in, each as long as those so far on average."""
        now = time.monotonic()
        seconds = (now - self._begun) / max(self._epochs, 1)
        return self.ends == math.inf or self.agree(now + epochs * seconds <= self.ends)
