"""How far the codebook of one process is from that of another."""

from __future__ import annotations

import re

import numpy as np

from vqdoctor.core.frozen import frozen
from vqdoctor.metrics.geometry import Rows, row_norms, spread

SAME = 1e-3
"""Share of the codes' spread by which a code of two processes may differ: rounding makes 1e-6."""

_RANK = re.compile(r"(?<![a-z])(?<![cempst]p_)rank[-_]?(\d+)", re.IGNORECASE)
"""The number of a process in a file's name. Under model parallelism (mp_rank …) they hold other parts."""


def rank_of(name: str) -> int | None:
    """Return the number of the process that saved a file, by the file's name; None where that says none."""
    found = _RANK.search(name)
    return int(found[1]) if found else None


def without_rank(name: str) -> str:
    """Return a file's name with # in place of the number of its process."""
    return _RANK.sub("rank#", name)


@frozen
class Apart:
    """Two codebooks of the same form.

    Attributes:
        typical: median distance of a code to the same code of the other one, over the spread of the codes, or
            over its own length where that is less: codes of hardly any count may be blown up, and their
            spread with them.
        codes: how many codes are another one.
    """

    typical: float
    codes: int

    @classmethod
    def of(cls, own: Rows, other: Rows) -> Apart:
        """Compare two codebooks [K, D] code by code."""
        norms = row_norms(own)
        whole = spread(own) or 1.0
        scale = np.where(norms > 0, np.minimum(norms, whole), whole)
        distances = np.linalg.norm(own - other, axis=1) / scale
        return cls(typical=float(np.median(distances)), codes=int((distances > SAME).sum()))
