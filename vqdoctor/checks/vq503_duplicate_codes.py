"""Many codes are copies of each other.

## Why it matters
Of two equal codes only the first is ever chosen, so a codebook with copies is smaller than it looks.
Copies come from an initialisation or a revival that drew the same vector several times, or from an
encoder that gives the same output for everything.

## How to read it
Rows nearer than a thousandth of the codebook's spread to an earlier row, as a share of all rows. Dead
codes that an EMA has let fade to zero all look alike and are left out: they are counted as dead.
A copy is dead by birth, so copies explain dead codes and a low perplexity. Where they are less than half
of the codes that are not active, most died of something else, and the copies are a note beside that. Where
EMA counts show which codes are unused, all of these that lie on another code count: the one of them that was
chosen may have moved on. An evaluation that trains the codebook (VQ307) moves codes, and makes no copies.

## Remedy
spread-duplicates: keep one of each and move the copies onto other encoder outputs.

## References
- Measured: k-means with 64 vectors for 256 codes leaves 65 distinct rows
- lucidrains/vector-quantize-pytorch 1.32.0: at most as many codes are replaced as there are vectors
"""

from vqdoctor.checks._causes import COLLAPSE
from vqdoctor.checks._usage import COLLAPSED_USAGE, poor
from vqdoctor.checks._words import Problems, if_known, measured, percent, problem
from vqdoctor.core.check import Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import CodebookGeometry, EvalForward, Usage
from vqdoctor.core.levels import Severity


class Limits(CheckLimits):
    """How many copies are allowed."""

    duplicate_share: float = limit(
        0.05,
        "Largest share of rows that are copies. Random and data initialisations have none, a revival "
        "that drew a vector twice a few; 64 vectors for 256 codes made it 0.75.",
    )
    dead_share: float = limit(
        0.5,
        "Least share of the codes that are not active, where the usage is poor, that copies must make up to "
        "be more than a note: with less, most of them died of something else.",
    )


def evaluate(
    geometry: CodebookGeometry, usage: Usage | None, in_eval: EvalForward | None, limits: Limits
) -> Problems:
    """Compare the share of copies with its limit, then with the dead codes."""
    copies = geometry.duplicate_rows
    share = copies / geometry.sample_size
    if share > limits.duplicate_share:
        dead = usage.num_codes - usage.active if usage is not None and poor(usage) else 0
        born_dead = max(copies, geometry.unused_copies or 0)
        most = born_dead >= limits.dead_share * dead
        yield problem(
            Severity.WARNING if most else Severity.NOTE,
            f"{copies:,} of {geometry.sample_size:,} codes ({percent(share)}) are copies of "
            "other codes and can never be chosen.",
            measured("duplicate_share", share, limits.duplicate_share),
            measured("duplicates", copies, unit="codes"),
            if_known("unused_copies", geometry.unused_copies, unit="codes"),
            # an EMA that runs in eval mode moves codes, and copies none
            explains=("VQ502",) if most and in_eval is not None and in_eval.codebook else (),
        )


CHECK = Check(
    code="VQ503",
    name="duplicate-codes",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("spread-duplicates",),
    explained_by=COLLAPSE,
    examples=(
        fires("k-means with few vectors", CodebookGeometry.healthy(duplicate_rows=191, effective_rank=7.9)),
        fires("dead copies", CodebookGeometry.healthy(duplicate_rows=191), Usage.healthy(used=65, active=60)),
        fires(
            "a few copies in a collapse: a note", CodebookGeometry.healthy(duplicate_rows=20), COLLAPSED_USAGE
        ),
        fires(
            "dead copies of codes that moved on",
            CodebookGeometry.healthy(duplicate_rows=90, unused_copies=130),
            COLLAPSED_USAGE,
        ),
        passes("healthy", CodebookGeometry.healthy()),
        passes("dead codes that faded to zero", CodebookGeometry.healthy(zero_rows=200, norm_min=0.0)),
    ),
    doc=__doc__,
)
