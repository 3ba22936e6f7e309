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
dimensions must not correlate. Where most codes are dead, it counts that half of these are such rows. Where
usage is poor, codes that were never chosen in the whole training tell
too, whatever they were drawn from: an EMA shrinks their counts and sums by one factor, so the quotient still
is where they began, and an optimizer that never had a gradient left them there. They are the cause if they
are half of the dead codes, and began far from all codes in use, or as independent noise where z_e has fewer
directions than dimensions, as no vector of such data is. Copies of one another are a case of VQ503, and
counts that are too large for the number of updates were written later, by a revival. Other causes leave codes
at their start too: an encoder without gradient, a loss that is too heavy. So this is the cause only if all of
these are absent. Where all rows are at the start, nothing was trained: VQ306. Codes that logits choose need
not lie in the data.

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
from vqdoctor.checks._renewed import set_later
from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.checks._words import Problems, figure, if_known, measured, percent, problem
from vqdoctor.core.check import CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import (
    CodebookGeometry,
    DataMatch,
    EmaState,
    EncoderSpread,
    StartRows,
    TrainForward,
    UnmovedRows,
    Usage,
)
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
    dead_share: float = limit(
        0.5,
        "Least share of the codes that are not active, where the usage is poor, that were never chosen at "
        "all, or are at their start: with less, most of them died of something else.",
    )
    offset: float = limit(
        4.0,
        "Least distance of the place where these codes began from the codes in use, in spreads of these. It "
        "is twice the mean offset from which VQ301 fires, since the encoder has moved since; a start at 20 "
        "beside z_e of size 1 measured 45.",
    )
    structure: float = limit(
        6.0,
        "Least correlation of their dimensions, in standard deviations, of vectors of the data. Random "
        "starts measured up to 4, trained codebooks 460 and more.",
    )
    directions: float = limit(
        0.5,
        "Largest effective rank of z_e, over its dimension, at which vectors of the data would correlate.",
    )


def evaluate(
    start: StartRows,
    spread: EncoderSpread | None,
    unmoved: UnmovedRows | None,
    usage: Usage | None,
    match: DataMatch | None,
    geometry: CodebookGeometry | None,
    ema: EmaState | None,
    forward: TrainForward | None,
    limits: Limits,
) -> Problems:
    """Compare the share of the rows at their start; then look for codes that were never chosen."""
    codes = start.sample_size
    if start.frozen:
        raise CannotJudge("the table rightly stays as it was drawn")
    if start.by_logits:
        raise CannotJudge("logits choose the codes, whichever place these have")
    if start.rows == codes:
        raise CannotJudge("all codes are as they were drawn, so the codebook was never trained (VQ306)")
    if spread is not None and spread.output_spread < CONSTANT:
        raise CannotJudge("z_e hardly varies, so no code but one could be reached (VQ507)")
    poor = usage is not None and _usage.poor(usage)
    least = limits.warn * codes
    if usage is not None and poor and _usage.active_share(usage) < _usage.ACTIVE_WARNING:
        least = min(least, limits.dead_share * (usage.num_codes - usage.active))
    if start.rows < least:
        if unmoved is None or usage is None or not poor:
            return
        copied = geometry is not None and 2 * geometry.duplicate_rows > unmoved.rows
        if not copied and not set_later(unmoved, ema, forward):
            yield from _never_chosen(unmoved, usage, match, limits)
        return
    fails = start.rows >= limits.fail * codes
    yield problem(
        Severity.ERROR if fails else Severity.WARNING,
        f"{start.rows:,} of {codes:,} codes ({percent(start.rows / codes)}) lie as the constructor draws "
        f"them, from {start.start}: the codebook was not placed in the data, and training hardly moved them.",
        measured("rows_at_start", start.rows, limits.fail * codes if fails else least, unit="codes"),
        if_known("unused", start.unused, unit="codes"),
        confidence=Confidence.HIGH if start.source == "batch" else Confidence.MEDIUM,
        decide_with="" if start.source == "batch" else "--data batch.npz",
    )


def _never_chosen(unmoved: UnmovedRows, usage: Usage, match: DataMatch | None, limits: Limits) -> Problems:
    """Fire where most dead codes were never chosen, and did not begin in the data."""
    if unmoved.rows < limits.dead_share * (usage.num_codes - usage.active):
        return
    is_far = unmoved.offset is not None and unmoved.offset > limits.offset
    correlates = match is not None and match.data_effective_rank < limits.directions * match.dim
    if not is_far and not (correlates and unmoved.structure < limits.structure):
        return
    where = "as independent noise"
    if is_far and unmoved.offset is not None:
        where = f"{figure(unmoved.offset)} spreads away from the codes in use"
    yield problem(
        Severity.WARNING,
        f"{unmoved.rows:,} of {unmoved.sample_size:,} codes were never chosen in the whole training: they "
        f"began {where}, and not in the data.",
        measured("never_chosen", unmoved.rows, limits.dead_share * (usage.num_codes - usage.active)),
        if_known("offset", unmoved.offset, limits.offset),
        measured("structure", unmoved.structure, limits.structure),
        confidence=Confidence.HIGH if is_far else Confidence.MEDIUM,
    )


CHECK = Check(
    code="VQ313",
    name="codes-left-at-start",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("data-init", "revive-dead-codes"),
    explained_by=(
        "VQ901",
        "VQ606",
        "VQ314",
        "VQ315",
        "VQ404",
        "VQ406",
        "VQ319",
        *(code for code in COLLAPSE if code < "VQ313"),
    ),
    examples=(
        fires(
            "84 of 128 codes within ±1/128", StartRows.healthy(sample_size=128, rows=84, start="U(±1/128)")
        ),
        fires(
            "230 of 256, and the data choose none of them",
            StartRows.healthy(source="batch", rows=230, start="N(0, 1)", unused=231),
        ),
        fires(
            "an EMA's sums still tell that most codes began far away, and were never chosen",
            StartRows.healthy(),
            UnmovedRows.healthy(rows=204, offset=45.0),
            COLLAPSED_USAGE,
        ),
        fires(
            "codes without a gradient, on noise, in front of data with few directions",
            StartRows.healthy(),
            UnmovedRows.healthy(rows=140, told_by="optimizer", structure=0.3, offset=0.4),
            COLLAPSED_USAGE,
            DataMatch.healthy(),
        ),
        passes(
            "codes that began in the data, which the encoder has left",
            StartRows.healthy(),
            UnmovedRows.healthy(rows=204, structure=80.0, offset=1.1),
            COLLAPSED_USAGE,
            DataMatch.healthy(),
        ),
        passes(
            "copies of one vector",
            StartRows.healthy(),
            UnmovedRows.healthy(rows=204, offset=45.0),
            COLLAPSED_USAGE,
            CodebookGeometry.healthy(duplicate_rows=200),
        ),
        passes(
            "codes that a revival wrote after the start",
            StartRows.healthy(),
            UnmovedRows.healthy(rows=204, offset=45.0, count=1.0),
            COLLAPSED_USAGE,
            EmaState.healthy(updates=2000),
            TrainForward.healthy(decay=0.95),
        ),
        passes("placed in the data", StartRows.healthy()),
        passes("a few left", StartRows.healthy(rows=40, start="U(±1/256)", unused=44)),
    ),
    doc=__doc__,
)
