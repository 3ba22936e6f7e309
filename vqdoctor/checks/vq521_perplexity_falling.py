"""The perplexity has fallen for a long part of the training, and goes on falling.

## Why it matters
A collapse need not come at once. The codes stay in use, each now and then, so that the number of active
codes looks healthy, while the usage gathers on fewer and fewer of them. One look at the end shows a low
perplexity, or one that still is enough; only the course of the training shows where it goes.

## How to read it
From a trace: the median perplexity of the last three intervals against the highest median before, and the
direction since then, by Kendall's tau over all pairs of intervals. A fall in the first steps that then
stops is not a finding: k-means spreads the codes more evenly than a trained encoder uses them.

## Remedy
lower-the-rate: the codes and the encoder follow each other down while both still move fast. Look for the
cause with the training's task at the step where the fall began.

## References
- A public study on CIFAR-10: perplexity 374 after 2,000 iterations, 171 after 10,000 and 136 after 30,000,
  while 99.8 % of the codes were used
- Kendall 1938, A new measure of rank correlation
"""

from collections.abc import Iterator

from vqdoctor.checks._causes import COLLAPSE
from vqdoctor.checks._course import LEAST, falling, require_length, smooth
from vqdoctor.checks._words import figure, measured, problem
from vqdoctor.core.check import Advice, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import Course
from vqdoctor.core.finding import Problem
from vqdoctor.core.levels import Confidence, Severity


class Limits(CheckLimits):
    """How deep a fall is, and how steady."""

    share: float = limit(
        0.6,
        "Share of its highest perplexity under which a course has fallen. Healthy digit trainings ended at "
        "0.99 and more of theirs, and the published fall at 0.36.",
    )
    late_share: float = limit(
        0.9,
        "Share of the perplexity halfway since its highest under which it goes on falling: 0.8 in the "
        "published fall, 1 in one that ended early.",
    )
    steadiness: float = limit(
        0.6,
        "Least Kendall's tau of the fall since halfway: 1 where every interval is lower than each before, "
        "and about 0 where the usage swings.",
    )


def evaluate(course: Course, limits: Limits) -> Iterator[Problem]:
    """Compare the end of the course with its highest part, and look at the direction between."""
    require_length(course)
    values = smooth(course.perplexity)
    top = max(range(len(values)), key=values.__getitem__)
    late = values[(top + len(values)) // 2 :]
    share, late_share = values[-1] / values[top], values[-1] / late[0]
    if len(late) < LEAST // 2 or share >= limits.share:
        return
    if late_share < limits.late_share and falling(late) >= limits.steadiness:
        yield problem(
            Severity.WARNING,
            f"The perplexity fell from {figure(values[top])} at step {course.steps[top]:,} to "
            f"{figure(values[-1])} at step {course.steps[-1]:,}, and goes on falling, while "
            f"{course.active[-1]:,} of {course.num_codes:,} codes are active.",
            measured("share_of_highest", share, limits.share),
            measured("late_share", late_share, limits.late_share),
            measured("steadiness", falling(late), limits.steadiness),
            measured("active", course.active[-1], unit="codes"),
            confidence=Confidence.MEDIUM,
            decide_with="--task FILE.py:NAME",
        )


_FALL = (374.0, 298.0, 242.0, 203.0, 171.0, 163.0, 157.0, 152.0, 147.0, 143.0, 139.0, 136.0)
_EARLY = (380.0, 210.0, 192.0, 186.0, 190.0, 188.0, 184.0, 191.0, 187.0, 189.0, 186.0, 188.0)

CHECK = Check(
    code="VQ521",
    name="perplexity-falling",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="lower-the-rate",
        how="Lower the learning rate of what is before the VQ layer, so that the codes can follow it.",
        code="torch.optim.Adam([{'params': encoder.parameters(), 'lr': 1e-4}])",
    ),
    explained_by=(*COLLAPSE, "VQ503", "VQ501", "VQ502"),
    examples=(
        fires("the published fall", Course.healthy(num_codes=512, perplexity=_FALL, active=(511,) * 12)),
        passes("healthy", Course.healthy()),
        passes("a fall that ended early", Course.healthy(perplexity=_EARLY)),
    ),
    doc=__doc__,
)
