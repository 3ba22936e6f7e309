"""Codes with an EMA count of zero have blown up.

## Why it matters
An EMA divides sums by counts. Where the counts start at zero and the sums start as the codes, a code
that is not chosen at once is divided by almost nothing: its norm jumps to 100,000 and more, and no
data will ever be near it. All codes that the first batches miss are lost in one step.

## How to read it
Codes whose norm is over 100 times the median of the codes in use, beside counts under a thousandth
of the mean. Measured norms: 1e5 after the first step, 1e4 after 200, under the limit after about
1,000, when these codes fade to zero instead; then they are counted as dead codes only. Where decay and
updates are known, the counts prove it below that limit too: one that started at one is d^t at least.

## Remedy
reset-ema: start the counts at one (or from data), with sums = codes x counts. revive-dead-codes:
bring the codes that have blown up back to the data.

## References
- rosinality/vq-vae-2-pytorch#72 and nadavbh12/VQ-VAE#11: counts that start at zero
- lucidrains/vector-quantize-pytorch, commit 4c514db: counts start at one
"""

from vqdoctor.checks._words import Problems, figure, if_known, measured, problem, warning
from vqdoctor.core.check import Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import CodebookGeometry, EmaState
from vqdoctor.core.levels import Severity


class Limits(CheckLimits):
    """How many codes may have blown up."""

    oversized_rows: float = limit(
        0.0,
        "Largest number of codes over 100 times the median norm. A code that data chooses cannot leave the "
        "data, so a healthy file has none.",
    )
    share: float = limit(
        0.1,
        "Least share of the codes that have grown from a count of zero, for it to cause poor usage: a "
        "note on fewer explains nothing. Counts that started at zero grew 45 to 85 % of the codes; a "
        "codebook too large for its data, under VideoGPT's rule, 0.8 %.",
    )


def evaluate(geometry: CodebookGeometry, ema: EmaState, limits: Limits) -> Problems:
    """Fire on oversized rows where there are zero counts to explain them, or on counts that prove it."""
    if ema.from_zero > limits.oversized_rows >= geometry.oversized_rows:
        few = ema.from_zero < limits.share * geometry.sample_size
        yield problem(
            Severity.NOTE if few else Severity.WARNING,
            f"{ema.from_zero} of {geometry.sample_size} codes have grown to norms of up to "
            f"{figure(geometry.norm_max)} against {figure(geometry.norm_median)}: their EMA counts are under "
            "what one would have shrunk to, so they started at zero, and the update divides by them.",
            measured("from_zero", ema.from_zero, limits.oversized_rows, unit="codes"),
            measured("norm_max", geometry.norm_max),
            if_known("start_weight", ema.start_weight),
        )
    elif geometry.oversized_rows > limits.oversized_rows and ema.zero_counts and ema.divided_by_zero != 0:
        yield warning(
            f"{geometry.oversized_rows} of {geometry.sample_size} codes have blown up, to norms "
            f"of up to {figure(geometry.norm_max)} against {figure(geometry.norm_median)}: their EMA "
            "counts are about zero, and the update divides by them.",
            measured("oversized_rows", geometry.oversized_rows, limits.oversized_rows, unit="codes"),
            measured("norm_max", geometry.norm_max),
            measured("zero_counts", ema.zero_counts, unit="codes"),
        )


CHECK = Check(
    code="VQ304",
    name="zero-count-blow-up",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("reset-ema", "revive-dead-codes"),
    explained_by=("VQ901", "VQ309"),
    examples=(
        fires(
            "counts started at zero, one step done",
            CodebookGeometry.healthy(oversized_rows=224, norm_max=3.8e5, norm_min=3.1),
            EmaState.healthy(zero_counts=224, count_min=0.0),
        ),
        fires(
            "counts started at zero, some hundred steps ago, and are stored as they were smoothed",
            CodebookGeometry.healthy(norm_max=160.0),
            EmaState.healthy(zero_counts=120, count_min=9.6e-4, start_weight=0.04, from_zero=120),
        ),
        passes("healthy", CodebookGeometry.healthy(), EmaState.healthy()),
        passes(
            "one code in use, at the middle of the data, and others that were left one by one",
            CodebookGeometry.healthy(oversized_rows=95, norm_max=80.0, norm_median=25.0),
            EmaState.healthy(zero_counts=95, count_min=1e-4, divided_by_zero=0),
        ),
        passes("a dead code that stayed small", CodebookGeometry.healthy(), EmaState.healthy(zero_counts=12)),
    ),
    doc=__doc__,
)
