"""The EMA forgets the codes before they are chosen again.

## Why it matters
An EMA of decay d averages over (1 + d) / (1 - d) batches. A code that no vector chooses within them loses its
count and its sum, shrinks or dies, and one that a single vector chooses is that vector. The codebook is that
of the last few batches, and its perplexity is at most what they hold.

## How to read it
The number is the vectors for each code within that window, were all codes used evenly. Large batches make up
for a fast decay: 0.8 is a library's default, and right for 16,384 vectors and 1,024 codes. So few vectors
count only where usage is poor, or where the newest batch alone has most of the weight: then each code is the
mean of those few. The decay is that which the file records, or the factor by which a training
pass shrinks the counts of codes that no vector chose. A decay near 0 is mostly a swapped weight:
`counts.lerp_(n, 0.99)` keeps 1 % of what was there.

## Remedy
slower-ema: decay 0.99. A larger batch does as much: vectors times window over K is what counts. data-init
brings the codes back that were forgotten.

## References
- van den Oord et al. 2017, arXiv:1711.00937, appendix A.1: decay 0.99
- lucidrains/vector-quantize-pytorch: decay 0.8 by default
"""

from __future__ import annotations

from vqdoctor.checks import _harm, _usage
from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.checks._words import Problems, figure, measured, problem
from vqdoctor.core.check import CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.ema import ema_window
from vqdoctor.core.evidence import CodeExpiry, EmaState, TaskMetrics, TrainForward, Usage
from vqdoctor.core.levels import Confidence


class Limits(CheckLimits):
    """How much the EMA has to remember."""

    per_code: float = limit(
        2.0,
        "Least vectors for each code within the window of the EMA. With less than two choices per code two "
        "of three codes fell under a revival's threshold in each pass on digits (VQ402).",
    )
    decay: float = limit(
        0.5,
        "Largest decay at which the newest batch alone has most of the weight. Published ones are 0.8 to "
        "0.999.",
    )
    averaged: float = limit(
        10.0,
        "Least vectors for each code within that window, beside such a decay: the mean of n vectors is off "
        "by an n-th of their variance, so ten make the quantization error a tenth larger.",
    )


def evaluate(
    usage: Usage,
    expiry: CodeExpiry,
    forward: TrainForward | None,
    ema: EmaState | None,
    metrics: TaskMetrics | None,
    limits: Limits,
) -> Problems:
    """Compare the vectors of the window with the number of codes."""
    decay = forward.decay if forward is not None else None
    if decay is None and ema is not None:
        decay = ema.decay
    if decay is None or not 0 <= decay < 1:
        raise CannotJudge("the EMA's decay is not known")
    batches = ema_window(decay)
    per_code = expiry.vectors * batches / expiry.sample_size
    forgets = per_code < limits.per_code and _usage.poor(usage)
    if not forgets and (decay > limits.decay or per_code >= limits.averaged):
        return
    theirs = expiry.source == "batch" and expiry.assumed_batch_size is None
    yield problem(
        _harm.severity(metrics),
        f"With decay {figure(decay)} the EMA remembers {figure(batches)} batches of {figure(expiry.vectors)} "
        f"vectors, which is {figure(per_code)} for each of the {expiry.sample_size:,} codes: "
        + ("it forgets a code before it is chosen again." if forgets else "each batch overwrites them."),
        measured("per_code", per_code, limits.per_code if forgets else limits.averaged),
        measured("decay", decay, None if forgets else limits.decay),
        measured("vectors", expiry.vectors),
        confidence=Confidence.HIGH if theirs else Confidence.MEDIUM,
        decide_with="" if theirs else "--task FILE.py:NAME",
    )


CHECK = Check(
    code="VQ320",
    name="ema-forgets",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("slower-ema", "data-init"),
    explained_by=("VQ901", "VQ319", "VQ309", "VQ101", "VQ102", "VQ103", "VQ204"),
    examples=(
        fires(
            "the weight of the old batches taken for that of the new one",
            COLLAPSED_USAGE,
            CodeExpiry.healthy(sample_size=128, vectors=64.0),
            TrainForward.healthy(decay=0.01),
        ),
        fires(
            "a file that records decay 0.8, with 100 vectors in a batch and 1,024 codes",
            COLLAPSED_USAGE,
            CodeExpiry.healthy(source="checkpoint", sample_size=1024, vectors=100.0, replaced=None),
            EmaState.healthy(decay=0.8),
        ),
        passes(
            "decay 0.8 and a large batch",
            COLLAPSED_USAGE,
            CodeExpiry.healthy(sample_size=1024, vectors=16_384.0),
            TrainForward.healthy(decay=0.8),
        ),
        fires(
            "a batch overwrites the codebook, whose codes are in use all the same",
            Usage.healthy(),
            CodeExpiry.healthy(sample_size=64, vectors=128.0),
            TrainForward.healthy(decay=0.01),
        ),
        passes(
            "the same with batches that hold enough for each code",
            Usage.healthy(),
            CodeExpiry.healthy(sample_size=64, vectors=1280.0),
            TrainForward.healthy(decay=0.01),
        ),
        passes(
            "few vectors for each code, and a library's decay",
            Usage.healthy(),
            CodeExpiry.healthy(sample_size=64, vectors=32.0),
            TrainForward.healthy(decay=0.8),
        ),
    ),
    doc=__doc__,
)
