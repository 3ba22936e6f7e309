"""Codes that are moved by hand do not stay: the EMA puts them back.

## Why it matters
An EMA writes every code anew as its sum over its count. A revival that writes the code alone is undone
by the next update, often before the same forward pass ends, so it is busy without an effect: a speech
codec's quantizer replaced 254 of 256 codes in each of 300 passes, and not one of them stayed.

## How to read it
With a model: in train-mode forward passes on a copy every write to the codebook is followed. Undone are
codes that one write moved and a later one put back; returned are codes that differed from their
sum over count in the file, and that the first pass put back there. From a file alone: codes that differ
from it (codes that are hardly ever chosen only where the smoothing of the counts is known; a few such codes
are a note), or, where the file records the count under which codes are replaced, codes under half of that
count that equal their sum over count. The last is a guess: a layer that replaces a few codes at a time leaves
some waiting. A revival that runs only every few steps needs `--probe-steps`. Where passes are seen to undo
a revival, codes that were never chosen (VQ313) are its effect: one that works moves them into the data. With
data, so is a codebook far from it (VQ301) where most codes were set long after the start, as counts say that
are too large for the number of updates, were not chosen since, and lie far from z_e: the revival writes them
there.

## Remedy
revive-dead-codes: write the sums and the counts with the codes.

## References
- espnet/espnet#6284: a revival without effect, overwritten in the same forward pass
- facebookresearch/encodec, audiocraft and copies: `replace_` writes `embed` and not `embed_avg`
- lucidrains/vector-quantize-pytorch: `replace` writes codes, counts and sums
"""

from collections.abc import Iterator

from vqdoctor.checks._encoder import CONSTANT
from vqdoctor.checks._renewed import set_later
from vqdoctor.checks._words import figure, measured, note, problem
from vqdoctor.core.check import Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import DataMatch, EmaState, Revival, TrainForward, UnmovedRows
from vqdoctor.core.finding import Measurement, Problem
from vqdoctor.core.levels import Confidence, Severity


class Limits(CheckLimits):
    """How many codes may be put back, or be waiting."""

    share: float = limit(
        0.02,
        "Largest share of the codes that may be put back. Layers whose revival works, and those without one, "
        "measured exactly 0, a revival that wrote the codes alone 0.87.",
    )
    waiting_share: float = limit(
        0.25,
        "Largest share of the codes that may have less than half of the recorded count, in a file alone. A "
        "revival that works leaves none, except those that found no vector in the last batch.",
    )

    astray: float = limit(
        0.5,
        "Least share of the codes that were set after the start, not chosen since, and lie off the data: a "
        "typical code has to be one of them, as its distance to the data is measured.",
    )
    nearest_data: float = limit(
        3.0,
        "Least distance of a typical code from its nearest z_e, in standard deviations of z_e: twice that "
        "from which VQ301 fires, since z_e moves on. Revived with noise of 100 times the spread: 438.",
    )


def evaluate(
    revival: Revival,
    unmoved: UnmovedRows | None,
    match: DataMatch | None,
    ema: EmaState | None,
    forward: TrainForward | None,
    limits: Limits,
) -> Iterator[Problem]:
    """Look for codes that were put back, that are off the data or their sums, then for waiting codes."""
    k = revival.num_codes
    live = revival.sample_size > 0
    if revival.undone > limits.share * k:
        yield _problem(
            f"A forward pass moves {revival.undone:,} of {k:,} codes and puts them back before it ends: the "
            "revival does not write the EMA's sums and counts.",
            measured("undone_share", revival.undone / k, limits.share),
            Confidence.HIGH,
            explains=("VQ313",),
        )
    elif (
        unmoved is not None
        and match is not None
        and unmoved.rows > limits.astray * k
        and match.nearest_data > limits.nearest_data
        and match.data_std >= CONSTANT * match.data_rms * match.dim**0.5
        and set_later(unmoved, ema, forward)
    ):
        yield _problem(
            f"{unmoved.rows:,} of {k:,} codes were written anew in the training, and no vector has chosen "
            f"them since: a typical code is {figure(match.nearest_data)} standard deviations away from the "
            "nearest encoder output, so the revival writes codes where there is no data.",
            measured("astray_share", unmoved.rows / k, limits.astray),
            Confidence.MEDIUM,
            explains=("VQ301", "VQ313"),
        )
    elif revival.returned > limits.share * k:
        fate = "the first forward pass put them back" if live else "the next update puts them back"
        yield _problem(
            f"{revival.returned:,} of {k:,} codes were moved away from their EMA sums over counts, and "
            f"{fate}: they were written without their sums and counts.",
            measured("returned_share", revival.returned / k, limits.share),
            Confidence.HIGH if live else Confidence.MEDIUM,
        )
    elif revival.returned and not live:
        yield note(
            f"{revival.returned:,} of {k:,} codes {'is' if revival.returned == 1 else 'are'} away from the "
            "EMA sums over counts, where the others lie on them, as after a revival that writes codes alone.",
            measured("returned_share", revival.returned / k, limits.share),
            confidence=Confidence.LOW,
        )
    elif revival.under_threshold is not None and revival.under_threshold > limits.waiting_share * k:
        yield _problem(
            f"{revival.under_threshold:,} of {k:,} codes have an EMA count under half of "
            f"{figure(revival.threshold or 0.0)}, where the training replaces them, and still equal their "
            "sums over counts.",
            measured("waiting_share", revival.under_threshold / k, limits.waiting_share),
            Confidence.LOW,
        )


def _problem(
    message: str, measurement: Measurement, confidence: Confidence, explains: tuple[str, ...] = ()
) -> Problem:
    return problem(
        Severity.WARNING,
        message,
        measurement,
        confidence=confidence,
        decide_with="" if confidence is Confidence.HIGH else "--data batch.npz --probe-steps 20",
        explains=explains,
    )


_SET_LATER = UnmovedRows.healthy(rows=240, count=1.0)

CHECK = Check(
    code="VQ505",
    name="revival-undone",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("revive-dead-codes",),
    explained_by=("VQ901", "VQ309", "VQ310", "VQ103", "VQ104", "VQ306", "VQ311", "VQ302", "VQ303"),
    meaningless_after=("VQ309", "VQ311"),
    examples=(
        fires("a codec's quantizer replaces 220 codes a pass and keeps none", Revival.healthy(undone=220)),
        fires("a training loop revived codes without their sums", Revival.healthy(returned=60)),
        fires(
            "a bare file: most codes are under the recorded threshold, and untouched",
            Revival.healthy(source="checkpoint", sample_size=0, threshold=2.0, under_threshold=190),
        ),
        fires(
            "a revival adds noise of 100 times the spread of z_e",
            Revival.healthy(),
            _SET_LATER,
            DataMatch.healthy(mean_offset=42.0, quantization_error=1.0, nearest_data=438.0),
            EmaState.healthy(updates=2000),
            TrainForward.healthy(decay=0.95),
        ),
        passes(
            "codes that the start has left far from the data",
            Revival.healthy(),
            _SET_LATER.replace(count=1e-30),
            DataMatch.healthy(mean_offset=42.0, quantization_error=1.0, nearest_data=438.0),
            EmaState.healthy(updates=2000),
            TrainForward.healthy(decay=0.95),
        ),
        passes("a revival that works, or none", Revival.healthy()),
        passes(
            "a few codes wait for the next batch",
            Revival.healthy(source="checkpoint", sample_size=0, threshold=2.0, under_threshold=20),
        ),
    ),
    doc=__doc__,
)
