"""The cost of one opening: a small file must not ask for much work, of however many pieces it is made."""

from __future__ import annotations

MAX_STEPS = 1_000_000
"""Steps of pickle machines, of half a microsecond to one each; a tensor takes some 130."""
STEPS_PER_BYTE = 0.01
"""More steps for a larger file: 10 million for a gigabyte, and no more than those for 100 MB."""
MAX_CONTAINERS = 100_000
"""Containers in trees, some 10 microseconds each for all who walk them: an optimizer has one a parameter."""
CONTAINERS_PER_BYTE = 0.001
"""More of them for a larger file: a million for a gigabyte."""


class Budget:
    """The steps and containers that are left to an opening; its files share one.

    Attributes:
        steps: steps that are left.
        containers: containers that are left.
    """

    def __init__(self, size: int = 0) -> None:
        self._size = 0
        self.steps, self.containers = MAX_STEPS, MAX_CONTAINERS
        self.earn(size)

    @property
    def granted(self) -> int:
        """Steps for all files so far."""
        return max(MAX_STEPS, int(self._size * STEPS_PER_BYTE))

    def earn(self, size: int) -> None:
        """Grant what a further file of `size` bytes is worth."""
        for way in (-1, 1):
            self.steps += way * self.granted
            self.containers += way * max(MAX_CONTAINERS, int(self._size * CONTAINERS_PER_BYTE))
            self._size += size if way < 0 else 0
