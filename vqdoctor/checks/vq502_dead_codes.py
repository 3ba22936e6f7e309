"""Most of the codebook is dead: never or hardly ever chosen.

## Why it matters
A code that is not chosen gets no gradient and no EMA update, so it never comes back by itself. The
model pays for K codes and works with the few that are left.

## How to read it
A code is active above 0.1/K of the usage (a fixed threshold such as 0.01 would be above the uniform
share itself for K = 256). The number is the active codes over those that perfectly even usage would
have made active on the same sample: under 0.4 a warning, under 0.3 an error. A rare code can be
missing from a small sample by chance: a code may be called dead only when three expected choices
are missing (the rule of three: 3/N < 0.1/K, 30 vectors per code). With fewer, every unseen code gets
the benefit of the doubt that is due at that sample size, and what is still too few counts.
Behind a pure classifier that has enough codes for its classes (see VQ501) this is a note.

## Remedy
revive-dead-codes: move dead codes onto encoder outputs, with their EMA sums and counts and without
their optimizer moments; and keep doing so during training.

## References
- Dhariwal et al. 2020, Jukebox, arXiv:2005.00341; Zeghidour et al. 2021, SoundStream, arXiv:2107.03312
- Hanley and Lippman-Hand 1983, If Nothing Goes Wrong, Is Everything All Right? (the rule of three)
- jishengpeng/WavTokenizer#82: a threshold above the mean count calls every code dead
"""

import math
from collections.abc import Iterator

from vqdoctor.checks import _usage
from vqdoctor.checks._causes import COLLAPSE
from vqdoctor.checks._usage import COLLAPSED_USAGE, EMA_USAGE
from vqdoctor.checks._words import measured, percent, problem
from vqdoctor.core.check import CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import TaskMetrics, Usage
from vqdoctor.core.finding import Problem
from vqdoctor.core.levels import Confidence, Severity

RULE_OF_THREE = 3.0


class Limits(CheckLimits):
    """Which share of the codes must be active."""

    warn_below: float = limit(
        _usage.ACTIVE_WARNING,
        "Active share under which it is a warning. A data initialisation without any revival can be "
        "healthy at 0.74; a deployed speech codec measured 0.84.",
    )
    fail_below: float = limit(
        _usage.ACTIVE_ERROR, "Active share under which it is an error: seven of ten codes are wasted."
    )


def evaluate(usage: Usage, task: TaskMetrics | None, limits: Limits) -> Iterator[Problem]:
    """Compare the active share with the limits; a doubt counts in favour of the codes."""
    if usage.implicit:
        raise CannotJudge("the layer stores no codes: combinations of levels cannot die, nor be revived")
    # A code of share t/K stays unseen by N vectors with probability exp(-t N/K). So if all active codes were
    # as rare as that, those seen would be 1 - exp(-t N/K) of them; at t N/K = 3 that is 95 %.
    vectors, active = _usage.effective_vectors(usage), _usage.active_share(usage)
    share, choices = active, usage.active_share * vectors / usage.num_codes
    if choices < RULE_OF_THREE:  # the largest active share that a sample of this size could hide
        seen = -math.expm1(-choices)
        share = max(share, usage.used / usage.num_codes / seen if seen else 1.0)
    if share >= limits.warn_below:
        if active < limits.warn_below:
            needed = RULE_OF_THREE * usage.num_codes / usage.active_share
            raise CannotJudge(
                f"{vectors:,.0f} independent vectors cannot tell rare codes from "
                f"dead ones: give {needed:,.0f}"
            )
        return
    if _usage.enough_for_task(usage, task):
        yield problem(
            Severity.NOTE,
            f"{usage.active:,} of {usage.num_codes:,} codes are active, enough for this task: a smaller "
            "codebook would do.",
            measured("active_share", active, limits.warn_below),
            measured("active", usage.active, unit="codes"),
            remedies=(_usage.FEWER_CODES,),
        )
        return
    fails = share < limits.fail_below
    yield problem(
        Severity.ERROR if fails else Severity.WARNING,
        f"Only {usage.active:,} of {usage.num_codes:,} codes are active ({percent(active)} of "
        "those to be expected); the rest is never or hardly ever chosen and cannot come back by itself.",
        measured("active_share", active, limits.fail_below if fails else limits.warn_below),
        measured("active", usage.active, unit="codes"),
        measured("used", usage.used, unit="codes"),
        confidence=Confidence.HIGH if usage.source == "batch" else Confidence.MEDIUM,
        decide_with="" if usage.source == "batch" else "--data batch.npz",
    )


_NO_REVIVAL = Usage.healthy(
    num_codes=1_024, used=212, active=205, expected_used=1_024.0, expected_active=1_024.0, share=0.207,
    perplexity=121.0, perplexity_low=117.0, perplexity_high=125.0, plug_in_perplexity=120.0,
    effective_size=14_000.0,
)  # fmt: skip

CHECK = Check(
    code="VQ502",
    name="dead-codes",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("revive-dead-codes",),
    explained_by=(*COLLAPSE, "VQ503", "VQ501"),
    meaningless_after=(
        "VQ306",
        "VQ311",
    ),
    examples=(
        fires("a good start without revival, K = 1,024", _NO_REVIVAL),
        fires("every vector on one code", COLLAPSED_USAGE),
        fires(
            "a pure classifier with a code for each class: a note",
            COLLAPSED_USAGE.replace(
                used=14, active=11, perplexity=11.0, perplexity_low=10.8, perplexity_high=11.2
            ),
            TaskMetrics.healthy(classes=10),
        ),
        passes("healthy", Usage.healthy()),
        passes("healthy EMA counts", EMA_USAGE),
    ),
    doc=__doc__,
)
