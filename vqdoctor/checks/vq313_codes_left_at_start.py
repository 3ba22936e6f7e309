"""Most of the codes still are where the constructor drew them: no data ever placed them.

## Why it matters
A codebook that is drawn at random lies anywhere but in the data. The few codes that happen to be
nearest to the first encoder outputs get all vectors, move into the data, and are nearest from then on.
All others get no gradient and no EMA sum, stay where they were drawn, and are never chosen.

## How to read it
The start is recognised by its distribution. A start within ±1/K, as in taming-transformers and
diffusers, is so narrow that a row shows by itself. Wider starts, N(0, 1) of `nn.Embedding` among them,
are compared with the rows that data, EMA counts or the optimizer's memory show to be unused. Kolmogorov
and Smirnov's test must not tell the rows from independent draws (one chance in 1,000), and their
dimensions must not correlate. Other causes leave codes at their start too: an encoder without gradient,
a loss that is too heavy. So this is the cause only if all of these are absent. Where all rows are at
the start, nothing was trained: VQ306.

## Remedy
data-init: place the codebook by k-means on encoder outputs before the first step. revive-dead-codes
brings those back that are lost later.

## References
- Łańcucki et al. 2020, arXiv:2005.08520: data-dependent initialisation
- Zeghidour et al. 2021, SoundStream, arXiv:2107.03312: k-means on the first batch
- Kolmogorov 1933; Smirnov 1948, Table for Estimating the Goodness of Fit of Empirical Distributions
"""

from vqdoctor.checks import _usage
from vqdoctor.checks._causes import COLLAPSE
from vqdoctor.checks._encoder import CONSTANT
from vqdoctor.checks._words import Problems, if_known, measured, percent, problem
from vqdoctor.core.check import CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import EncoderSpread, StartRows
from vqdoctor.core.levels import Confidence, Severity


class Limits(CheckLimits):
    """Which share of the codes may lie where they were drawn."""

    warn: float = limit(
        1 - _usage.ACTIVE_WARNING,
        "Share from which it is a warning: that of dead codes from which VQ502 warns. Trainings with a data "
        "initialisation leave no code at the start.",
    )
    fail: float = limit(
        1 - _usage.ACTIVE_ERROR,
        "Share from which it is an error: that of dead codes from which VQ502 is one.",
    )


def evaluate(start: StartRows, spread: EncoderSpread | None, limits: Limits) -> Problems:
    """Compare the share of the rows that were left at their start with the limits."""
    codes = start.sample_size
    if start.frozen:
        raise CannotJudge("the table rightly stays as it was drawn")
    if start.rows == codes:
        raise CannotJudge("all codes are as they were drawn, so the codebook was never trained (VQ306)")
    if spread is not None and spread.output_spread < CONSTANT:
        raise CannotJudge("z_e hardly varies, so no code but one could be reached (VQ507)")
    share = start.rows / codes
    if share < limits.warn:
        return
    fails = share >= limits.fail
    yield problem(
        Severity.ERROR if fails else Severity.WARNING,
        f"{start.rows:,} of {codes:,} codes ({percent(share)}) still are as the constructor drew them, from "
        f"{start.start}: the codebook was not placed in the data, and no vector ever reached them.",
        measured("rows_at_start", start.rows, (limits.fail if fails else limits.warn) * codes, unit="codes"),
        if_known("unused", start.unused, unit="codes"),
        confidence=Confidence.HIGH if start.source == "batch" else Confidence.MEDIUM,
        decide_with="" if start.source == "batch" else "--data batch.npz",
    )


CHECK = Check(
    code="VQ313",
    name="codes-left-at-start",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("data-init", "revive-dead-codes"),
    explained_by=("VQ901", "VQ606", "VQ314", "VQ404", *(code for code in COLLAPSE if code < "VQ313")),
    examples=(
        fires(
            "84 of 128 codes within ±1/128", StartRows.healthy(sample_size=128, rows=84, start="U(±1/128)")
        ),
        fires(
            "230 of 256, and the data choose none of them",
            StartRows.healthy(source="batch", rows=230, start="N(0, 1)", unused=231),
        ),
        passes("placed in the data", StartRows.healthy()),
        passes("a few left", StartRows.healthy(rows=40, start="U(±1/256)", unused=44)),
    ),
    doc=__doc__,
)
