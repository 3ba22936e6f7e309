"""Which levels of a stack were ever written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from vqdoctor.core.evidence import LevelUse, Source
from vqdoctor.layouts.live_rows import counted, never_written
from vqdoctor.layouts.stacks import stacks
from vqdoctor.layouts.view import QuantizerView

ALONE = "the layer is not a level of a stack"


def levels(views: Sequence[QuantizerView], source: Source) -> Iterator[LevelUse]:
    """Yield, for every level of every stack, whether an EMA update ever wrote the counts of the file.

    None is unknown: there are no counts, or none that can be read. Zeros are the start of some libraries and
    the end of none: dead codes fade, but never to exactly 0 all together. Whole numbers are those of an
    initialisation on data, where the counts of other levels show that updates leave fractions.
    """
    for stack in stacks(views):
        known = [None if (c := view.counts) is None or not np.isfinite(c).all() else c for view in stack]
        moved = [None if c is None else not never_written(c) for c in known]
        fractions = any(c is not None and (c != np.rint(c)).any() for c in known)
        placed = [fractions and c is not None and counted(c) for c in known]
        written = [m and not p for m, p in zip(moved, placed, strict=True)]
        for number, view in enumerate(stack, start=1):
            yield LevelUse(
                layer=view.name,
                source=source,
                sample_size=view.num_codes,
                level=number,
                levels=len(stack),
                written=written[number - 1],
                placed=placed[number - 1],
                others_written=sum(w is True for i, w in enumerate(written, start=1) if i != number),
            )
