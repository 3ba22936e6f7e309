"""Many codes are copies of each other.

## Why it matters
Of two equal codes only the first is ever chosen, so a codebook with copies is smaller than it looks.
Copies come from an initialisation or a revival that drew the same vector several times, or from an
encoder that gives the same output for everything.

## How to read it
Rows nearer than a thousandth of the codebook's spread to an earlier row, as a share of all rows. Dead
codes that an EMA has let fade to zero all look alike and are left out: they are counted as dead.

## Remedy
spread-duplicates: keep one of each and move the copies onto other encoder outputs.

## References
- Measured: k-means with 64 vectors for 256 codes leaves 65 distinct rows
- lucidrains/vector-quantize-pytorch 1.32.0: at most as many codes are replaced as there are vectors
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vqdoctor.checks._causes import COLLAPSE
from vqdoctor.checks._specimens import GEOMETRY
from vqdoctor.checks._words import percent
from vqdoctor.core.check import Check, Example, limit
from vqdoctor.core.evidence import CodebookGeometry
from vqdoctor.core.finding import Measurement, Problem
from vqdoctor.core.levels import Severity


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How many copies there may be."""

    duplicate_share: float = limit(
        0.05,
        "Largest share of rows that are copies. Random and data initialisations have none, a revival "
        "that drew a vector twice a few; 64 vectors for 256 codes made it 0.75.",
    )


def evaluate(geometry: CodebookGeometry, limits: Limits) -> Iterator[Problem]:
    """Hold the share of copies against its limit, faded codes left out."""
    faded = max(0, geometry.zero_rows - 1)  # all copies of the first of them
    copies = max(0, geometry.duplicate_rows - faded)
    share = copies / geometry.sample_size
    if share > limits.duplicate_share:
        yield Problem(
            message=f"{copies:,} of {geometry.sample_size:,} codes ({percent(share)}) are copies of "
            "other codes and can never be chosen.",
            severity=Severity.WARNING,
            measurements=(
                Measurement(name="duplicate_share", value=share, limit=limits.duplicate_share),
                Measurement(name="duplicates", value=copies, unit="codes"),
            ),
        )


CHECK = Check(
    code="VQ503",
    name="duplicate-codes",
    title="Many codes are copies of each other.",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("spread-duplicates",),
    explained_by=(*COLLAPSE, "VQ501", "VQ502"),
    examples=(
        Example(
            title="k-means with 64 vectors for 256 codes",
            evidence=(GEOMETRY.replace(duplicate_rows=191, effective_rank=7.9),),
            fires=True,
        ),
        Example(title="healthy", evidence=(GEOMETRY,), fires=False),
        Example(
            title="dead codes that faded to zero",
            evidence=(GEOMETRY.replace(zero_rows=200, duplicate_rows=199, norm_min=0.0),),
            fires=False,
        ),
    ),
    doc=__doc__,
)
