"""How far the codebook of one process is from that of another."""

from __future__ import annotations

import numpy as np

from vqdoctor.core.frozen import frozen
from vqdoctor.metrics.geometry import Rows, spread

SAME = 1e-3
"""Share of the codes' spread by which a code of two processes may differ: rounding makes 1e-6."""


@frozen
class Apart:
    """Two codebooks of the same form.

    Attributes:
        typical: median distance of a code to the same code of the other one, over the spread of the codes.
        codes: how many codes are another one.
    """

    typical: float
    codes: int

    @classmethod
    def of(cls, own: Rows, other: Rows) -> Apart:
        """Compare two codebooks [K, D] code by code."""
        distances = np.linalg.norm(own - other, axis=1) / (spread(own) or 1.0)
        return cls(typical=float(np.median(distances)), codes=int((distances > SAME).sum()))
