"""The schedule of the VQ loss's weight."""

from __future__ import annotations


def warm_up(epoch: int, epochs: int) -> float:
    """Return the factor of the VQ loss's weight in an epoch: from 1/epochs up to one, linearly.

    Args:
        epoch: the epoch, from 0.
        epochs: epochs until the full weight; 0 for no warm-up.

    >>> [warm_up(epoch, 4) for epoch in range(6)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    >>> warm_up(0, 0)
    1.0
    """
    return min(1.0, (epoch + 1) / epochs) if epochs > 0 else 1.0
