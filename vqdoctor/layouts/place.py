"""Where the rows of one VQ layer lie in a stored tensor: the one rule for reading and for writing."""

from __future__ import annotations

from typing import Any

from vqdoctor.core.frozen import frozen


@frozen
class Place:
    """The rows of one codebook in a tensor that may hold several heads, padding, or codes as columns.

    Attributes:
        head: index along the heads' axis where one tensor holds the codebooks of several; else None.
        head_axis: that axis, 0 or 1.
        transposed: whether the codes are stored as columns, [D, K].
        first: the first row, where one table holds the rows of several codebooks one after another.
        rows: K, where further rows are padding or another codebook's; None for all.
    """

    head: int | None = None
    head_axis: int = 0
    transposed: bool = False
    first: int = 0
    rows: int | None = None

    def codes(self, stored: Any) -> Any:
        """Return the codes (or EMA sums) [K, D] as a view of a stored array or torch tensor.

        Writing to the view writes to what is stored.
        """
        values = self._head(stored)
        return self._slice(values.T if self.transposed else values)

    def counts(self, stored: Any) -> Any:
        """Return the EMA counts [K] as a view of a stored array or torch tensor."""
        return self._slice(self._head(stored))

    def _head(self, stored: Any) -> Any:
        if self.head is None:
            return stored
        return stored[:, self.head] if self.head_axis else stored[self.head]

    def _slice(self, values: Any) -> Any:
        return values[self.first : None if self.rows is None else self.first + self.rows]
