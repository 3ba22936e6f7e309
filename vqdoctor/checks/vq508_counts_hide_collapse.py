"""The EMA counts claim far more codes than the data uses.

## Why it matters
EMA counts add up many batches. If in each batch other codes win, or if the codebook collapsed faster than the
counts forget, the counts spread over many codes while the data chooses a few. A monitor that prints the
perplexity of the counts then shows a healthy codebook for a model that has lost it.

## How to read it
The perplexity of the counts against that of the data, both with their 95 % intervals: the lower end of the
one against the upper end of the other. The data must have 16 vectors per code, which make its perplexity
known; the perplexity of a single batch is always lower. Where the data's usage is that of a working layer,
there is no collapse to hide, and it is a note. Counts that have not forgotten their start are not
compared. Data of another kind than the training's has the same effect, so give the training's own.

## Remedy
Print the perplexity of the codes that a whole split chooses in eval mode. The cause of the collapse, where it
is known, is the finding above this one.

## References
- Measured: an EMA layer that lost its normaliser had perplexity 1.06, and 27 to 252 by its counts
- Dhariwal et al. 2020, Jukebox, arXiv:2005.00341: usage is watched on the codes of the batch
"""

from __future__ import annotations

from collections.abc import Iterator

from vqdoctor.checks import _usage
from vqdoctor.checks._causes import COLLAPSE
from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.checks._words import figure, measured, problem
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import CountsUsage, Usage
from vqdoctor.core.finding import Problem
from vqdoctor.core.levels import Confidence, Severity


class Limits(CheckLimits):
    """How far counts and data may be apart, and how many vectors that takes."""

    ratio: float = limit(
        2.0,
        "Least ratio of the perplexity of the counts (its lower end) to that of the data "
        "(its upper end). Sound models measured at most 1.1, and so did collapses that counts show; codes "
        "on a sphere that z_e does not lie on 3.3, with 97 codes by the counts and 29 by the data.",
    )
    vectors_per_code: float = limit(
        float(_usage.PLENTY),
        "Least vectors per code in the data, from which its perplexity is known to about 3 %, whatever the "
        "usage looks like.",
    )


def evaluate(usage: Usage, counts: CountsUsage, limits: Limits) -> Iterator[Problem]:
    """Compare the lower end of the counts' perplexity with the upper end of the data's."""
    if usage.source != "batch":
        raise CannotJudge("there is no data to compare the EMA counts with")
    if usage.sample_size < limits.vectors_per_code * usage.num_codes:
        needed = limits.vectors_per_code * usage.num_codes
        raise CannotJudge(f"{usage.sample_size:,} vectors are too few to compare: give {needed:,.0f}")
    ratio = counts.low / usage.perplexity_high
    if ratio > limits.ratio:
        yield problem(
            Severity.WARNING if _usage.poor(usage) else Severity.NOTE,
            f"The EMA counts claim a perplexity of {figure(counts.perplexity)}, and the data has "
            f"{figure(usage.perplexity)} over {usage.sample_size:,} vectors: a monitor that reads "
            "the counts hides the collapse.",
            measured("ratio", ratio, limits.ratio),
            measured("counts_perplexity", counts.perplexity, unit="codes"),
            measured("perplexity", usage.perplexity, unit="codes"),
            confidence=Confidence.MEDIUM,
            decide_with="--data with the training's own",
        )


CHECK = Check(
    code="VQ508",
    name="counts-hide-collapse",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="watch-the-codes",
        how="Print the perplexity of the codes of a whole split in eval mode, not that of the EMA counts.",
        code=(
            "counts = torch.bincount(indices.flatten(), minlength=num_codes)\n"
            "p = counts / counts.sum()\n"
            "perplexity = torch.exp(-torch.special.xlogy(p, p).sum())"
        ),
    ),
    explained_by=(*COLLAPSE, "VQ503", "VQ501", "VQ502"),
    examples=(
        fires(
            "counts of other batches",
            COLLAPSED_USAGE,
            CountsUsage.healthy(perplexity=52.0, low=50.0, high=54.0),
        ),
        passes("healthy", Usage.healthy(), CountsUsage.healthy()),
        passes(
            "a collapse that the counts show",
            COLLAPSED_USAGE,
            CountsUsage.healthy(perplexity=1.05, low=1.0, high=1.1),
        ),
    ),
    doc=__doc__,
)
