"""Something has overwritten the codes: they are all one and the same, beside live EMA counts and sums.

## Why it matters
Every vector gets the same index, so the layer passes nothing on. The training is not lost: each code is its
EMA sum over its count, and both are still there.

## How to read it
All rows of the codebook are equal or zero, while the counts were written and the sums over counts of the
codes in use differ from code to code. An EMA writes codes from these, so another writer came after it. A
mixed-precision optimizer does that: it keeps a float32 master copy of each parameter, and copies it back over
the parameter that the EMA has written. A save that gathers only a part of the tensors leaves zeros in the
same way. Without EMA statistics equal rows are VQ306.

## Remedy
codes-from-sums writes each code as its sum over its smoothed count. In training code, keep the codebook out
of the optimizer and out of the cast to half precision, as a buffer in float32.

## References
- microsoft/DeepSpeed: the BF16 and FP16 optimizers copy their float32 master weights back after each step
- van den Oord et al. 2017, arXiv:1711.00937, appendix A.1: code = sum / count
"""

from vqdoctor.checks._overwritten import has_live_means
from vqdoctor.checks._words import Problems, error, measured
from vqdoctor.core.check import CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import EmaState, Initialisation


class Limits(CheckLimits):
    """When the codes count as overwritten."""

    identical: float = limit(
        1.0,
        "Share of the rows that are bitwise equal from which the codebook counts as overwritten. An EMA of "
        "different sums and counts writes different codes.",
    )


def evaluate(start: Initialisation, ema: EmaState, limits: Limits) -> Problems:
    """Compare the rows with each other, and then look for live statistics."""
    rows = start.sample_size
    if ema.never_written:
        raise CannotJudge("the EMA counts were never written, so they hold no codes")
    if ema.means_spread is None:
        raise CannotJudge("the file holds no EMA sums of codes in use")
    if rows > 1 and start.identical_rows >= limits.identical * rows and has_live_means(ema):
        what = "zero" if start.zero_rows == rows else "one and the same"
        yield error(
            f"All {rows:,} codes are {what}, while their EMA counts and sums were trained: something, such "
            "as the master copy of a mixed-precision optimizer, has overwritten the codebook.",
            measured("identical", start.identical_rows / rows, limits.identical),
            measured("means_spread", ema.means_spread),
        )


_ZERO = Initialisation.healthy(identical_rows=256, zero_rows=256, structure=0.0)

CHECK = Check(
    code="VQ311",
    name="codebook-overwritten",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("codes-from-sums",),
    explained_by=("VQ901",),
    examples=(
        fires("zeros beside live sums", _ZERO, EmaState.healthy(sums_disagreement=None, compared_rows=0)),
        fires("one row beside live sums", _ZERO.replace(zero_rows=0), EmaState.healthy()),
        passes("trained", Initialisation.healthy(), EmaState.healthy()),
        passes("the sums are all alike too", _ZERO, EmaState.healthy(means_spread=0.0)),
    ),
    doc=__doc__,
)
