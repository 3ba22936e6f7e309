"""The usage went down after codes were revived for the last time.

## Why it matters
A revival moves dead codes to the data, and the figures of the usage rise. If what made them die is still
there, they die again as soon as the revival ends: figures taken before are those of the revival, and not of
the codebook. The checkpoint at the end of the training is the collapsed one.

## How to read it
From a trace: intervals in which codes jumped, as a revival moves them, and the median perplexity while they
did so; against the median of the last three intervals, all of them after the last such jump.

## Remedy
revive-dead-codes helps for as long as it runs. Look for the cause of the deaths, and let the revival go on
until the learning rate has fallen.

## References
- Dhariwal et al. 2020, Jukebox, arXiv:2005.00341: random restarts go on through the whole training
- lucidrains/vector-quantize-pytorch: threshold_ema_dead_code revives in every step
"""

from collections.abc import Iterator
from statistics import median

from vqdoctor.checks._causes import COLLAPSE
from vqdoctor.checks._course import WINDOW, require_length
from vqdoctor.checks._words import figure, measured, problem
from vqdoctor.core.check import CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import Course
from vqdoctor.core.finding import Problem
from vqdoctor.core.levels import Confidence, Severity


class Limits(CheckLimits):
    """How often a training revives, how much it loses, and after how long."""

    share: float = limit(
        0.6,
        "Share of the perplexity during the revivals under which the end of the training has lost their "
        "effect. Healthy digit trainings whose revival found no more dead codes measured 1.07 to 1.22.",
    )
    intervals: float = limit(
        3.0, "Least intervals with a revival, so that a single jump of the codes is not taken for one."
    )
    jumped: float = limit(
        0.01,
        "Least share of the codes that jump in an interval with a revival. Digit trainings without a "
        "revival measured at most 0.006, those with one 0.03 to 0.27 at first.",
    )


def evaluate(course: Course, limits: Limits) -> Iterator[Problem]:
    """Compare the perplexity after the last revival with that during the revivals."""
    require_length(course)
    least = limits.jumped * course.num_codes
    revivals = [i for i, jumped in enumerate(course.revived) if jumped > least]
    if len(revivals) < limits.intervals:
        return
    last = revivals[-1]
    after = course.perplexity[last + 1 :]
    if len(after) < WINDOW:
        raise CannotJudge("codes are revived to the end of the trace")
    during, now = median(course.perplexity[i] for i in revivals), median(after[-WINDOW:])
    if now < limits.share * during:
        yield problem(
            Severity.WARNING,
            f"The perplexity was {figure(during)} while codes were revived, and {figure(now)} at the end of "
            f"the trace: codes died again after the last revival at step {course.steps[last]:,}.",
            measured("share_of_revival", now / during, limits.share),
            measured("perplexity", now, unit="codes"),
            confidence=Confidence.LOW,
            decide_with="--task FILE.py:NAME",
        )


_LOST = (120.0, 150.0, 160.0, 158.0, 161.0, 150.0, 120.0, 90.0, 70.0, 55.0, 48.0, 44.0)
_REVIVED = (0, 80, 40, 38, 44, 0, 0, 0, 0, 0, 0, 0)

CHECK = Check(
    code="VQ522",
    name="collapse-after-revival",
    evaluate=evaluate,
    limits=Limits(),
    remedies=("revive-dead-codes",),
    explained_by=(*COLLAPSE, "VQ503", "VQ501", "VQ502"),
    examples=(
        fires("the revival ended and the codes died", Course.healthy(perplexity=_LOST, revived=_REVIVED)),
        passes("the codes live on", Course.healthy(revived=_REVIVED)),
        passes("no revival", Course.healthy(perplexity=_LOST, revived=(0,) * 12)),
    ),
    doc=__doc__,
)
