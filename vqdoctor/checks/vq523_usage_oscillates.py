"""The usage swings up and down from one interval to the next.

## Why it matters
Codes that are won and lost again teach the decoder nothing that lasts. A checkpoint then is good or bad by
the step at which it was saved, and one look at it shows either.

## How to read it
From a trace: over its second half, the median change of the perplexity between neighbouring intervals, as a
factor, and how often its direction turns. A course that rises or falls steadily does not turn.

## Remedy
smaller-steps: the swings come from codes or an encoder that move too far in a step, or from a revival that
moves too many codes at once.

## References
- Lancucki et al. 2020, Robust training of vector quantized bottleneck models, arXiv:2005.08520: the codes
  chase an encoder that moves too fast
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from statistics import median

from vqdoctor.checks._causes import COLLAPSE
from vqdoctor.checks._course import LEAST, require_length
from vqdoctor.checks._words import figure, measured, problem
from vqdoctor.core.check import Advice, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import Course
from vqdoctor.core.finding import Problem
from vqdoctor.core.levels import Confidence, Severity


class Limits(CheckLimits):
    """How far and how often the usage swings."""

    factor: float = limit(
        1.2,
        "Median change of the perplexity between neighbouring intervals, as a factor. The second halves of "
        "healthy digit trainings measured 1.01 to 1.02, codes on a sphere that z_e does not lie on 1.29.",
    )
    turns: float = limit(
        0.4,
        "Share of the changes whose direction differs from the one before. Noise alone turns in two thirds.",
    )


def evaluate(course: Course, limits: Limits) -> Iterator[Problem]:
    """Look at the changes in the second half of the course."""
    require_length(course, 2 * LEAST)
    late = [max(value, 1.0) for value in course.perplexity[len(course.perplexity) // 2 :]]
    changes = [math.log(after / before) for before, after in pairwise(late)]
    factor = math.exp(median(abs(change) for change in changes))
    turns = sum(a * b < 0 for a, b in pairwise(changes)) / (len(changes) - 1)
    if factor > limits.factor and turns > limits.turns:
        yield problem(
            Severity.WARNING,
            f"The perplexity swings between {figure(min(late))} and {figure(max(late))} since step "
            f"{course.steps[len(course.steps) // 2]:,}, by a factor of {figure(factor)} each time.",
            measured("factor", factor, limits.factor),
            measured("turns", turns, limits.turns),
            confidence=Confidence.LOW,
            decide_with="--task FILE.py:NAME",
        )


_STEPS = tuple(range(100, 1_700, 100))
_LEVEL = (180.0, 184.0, 181.0, 183.0) * 4
_SWING = (180.0, 60.0, 170.0, 70.0) * 4
_LONG = {"steps": _STEPS, "active": (240,) * 16, "revived": (0,) * 16, "z_e_norm": (20.0,) * 16}

CHECK = Check(
    code="VQ523",
    name="usage-oscillates",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="smaller-steps",
        how="Lower the learning rate or raise the EMA decay, and revive fewer codes at a time.",
        code="decay = 0.99   # of the EMA",
        setting=("decay", "0.99"),
    ),
    explained_by=(*COLLAPSE, "VQ503", "VQ501", "VQ502"),
    examples=(
        fires("codes won and lost", Course.healthy(perplexity=_SWING, code_norm=(20.0,) * 16, **_LONG)),
        passes("level", Course.healthy(perplexity=_LEVEL, code_norm=(20.0,) * 16, **_LONG)),
    ),
    doc=__doc__,
)
