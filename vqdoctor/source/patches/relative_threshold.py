"""A threshold of the revival that follows the counts: a code is dead under a tenth of their mean.

An absolute one is above the uniform share of a large codebook, and then revives every code.
"""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from vqdoctor.source.edit import code, edited, every
from vqdoctor.source.patch import Patch, Proposal
from vqdoctor.source.place import Place, mentions


def _propose(place: Place, remedy: str) -> Iterator[Proposal]:
    counts = place.role("counts")
    for node in every(place.layer, cst.Comparison) if counts else ():
        compared = node.comparisons[0]
        left, right = node.left, compared.comparator
        side, threshold = (left, right) if mentions(left, counts) else (right, left)
        if mentions(side, counts) and not mentions(threshold, counts):
            relative = f"0.1 * {code(side)}.mean()"
            changed = edited(place.module, {threshold: relative})
            yield Proposal(module=changed, what=f"{relative}, in place of {code(threshold)}")


PATCH = Patch(remedies=("relative-threshold",), propose=_propose)
