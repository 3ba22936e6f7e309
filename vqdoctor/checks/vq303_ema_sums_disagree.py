"""The codebook is not what its EMA sums and counts say.

## Why it matters
The next training step sets every code to its sum over its count. Where these disagree with the
codebook, the writer of the codes (a revival, an initialisation, an optimizer) wrote only half: the
codes jump back, and the revival or the initialisation is lost.

## How to read it
The median over the codes in use of |E - S/c| / |E|. With a model at work it counts unless the loss alone
trains the codes, beside an EMA that is switched off. Libraries that write E from S and c agree to
1e-6. About 1 - 1/c (0.99 was measured) is the k-means bug: sums initialised without the counts.
Codes that are not in use are left out, since they differ in healthy files too. A file that was saved
before the first update cannot be compared. Nor can averaged weights (SWA, an EMA of weights): codes, sums and
counts are each averaged, and need not agree. There every code lies nearest to its own mean and hardly any on
it, while a writer of codes moves them elsewhere, or leaves others where they were.

## Remedy
reset-ema: sums = codes x counts. Code that writes the codebook must write both as well.

## References
- lucidrains/vector-quantize-pytorch#66: a few codes left one step after k-means; sums lacked the counts
- espnet/espnet#6284: a revival without effect, overwritten in the same forward pass
"""

from collections.abc import Iterator

from vqdoctor.checks._words import measured, percent, problem
from vqdoctor.core.check import CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import CodebookGradient, EmaState
from vqdoctor.core.finding import Problem
from vqdoctor.core.levels import Severity


class Limits(CheckLimits):
    """How far codes and EMA may be apart."""

    disagreement: float = limit(
        0.05,
        "Largest median of |E - S/c| / |E| over the codes in use. Rounding explains 1e-6, and in half "
        "precision 0.01; sums that were initialised without their counts measured 0.99.",
    )


def evaluate(ema: EmaState, gradient: CodebookGradient | None, limits: Limits) -> Iterator[Problem]:
    """Compare the median disagreement with its limit."""
    if gradient is not None and gradient.gradient and not gradient.ema_owned:
        raise CannotJudge("the loss trains the codebook, and no training pass writes codes from the EMA")
    if ema.never_written:
        raise CannotJudge(
            "the EMA counts were never written, so there is nothing to compare the codebook with"
        )
    if ema.blurred:
        raise CannotJudge(
            "every code in use lies near its own mean, and hardly any on it: averages of weights do, and "
            "numbers of 8 bits, and nobody has moved a code"
        )
    if ema.sums_disagreement is None or not ema.compared_rows:
        raise CannotJudge("the file holds no EMA sums of codes in use")
    if ema.sums_disagreement > limits.disagreement:
        measurements = [measured("disagreement", ema.sums_disagreement, limits.disagreement)]
        if ema.worst_disagreement is not None:
            measurements.append(measured("worst_disagreement", ema.worst_disagreement))
        yield problem(
            Severity.WARNING,
            "The codes in use differ from their EMA sums over counts by "
            f"{percent(ema.sums_disagreement)} of their length, so the next training step moves them there.",
            *measurements,
        )


CHECK = Check(
    code="VQ303",
    name="ema-sums-disagree",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("reset-ema",),
    explained_by=("VQ901", "VQ309", "VQ310", "VQ103", "VQ104", "VQ306", "VQ311", "VQ302"),
    examples=(
        fires(
            "k-means without the counts", EmaState.healthy(sums_disagreement=0.992, worst_disagreement=0.998)
        ),
        passes("written by the EMA", EmaState.healthy()),
        passes("stored in half", EmaState.healthy(sums_disagreement=0.004, worst_disagreement=0.02)),
    ),
    doc=__doc__,
)
