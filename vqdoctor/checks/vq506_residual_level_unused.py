"""A level of a residual quantizer carries no information.

## Why it matters
Every level costs its bits and its time. One that was never trained makes the output worse where it is
used, and one that gives the same code for everything adds a constant.

## How to read it
Level by level, the first left out: a collapse of the first is a collapse of the whole codebook, which is
another finding. Never trained: all EMA counts of the level have their start value, while the counts
of other levels moved; the training never reached it, as when the dropout of levels draws from a range
that is one too short; then its own initialisation is still to come as well. Or the first evaluation made that
initialisation: then the counts are the whole numbers of k-means on its vectors, where the updates have left
fractions in those of other levels. Poor usage of such a level is a symptom of this. Collapsed: its codes have
a perplexity near 1 although the levels before leave a rest to quantize. Where they leave next to nothing,
the level is superfluous, which is a note. A level that is only unfinished (poor usage, but moving) is
neither: the checks of usage and of the EMA see it.

## Remedy
A dropout of levels draws how many are used; the largest draw has to be all of them. `randrange` leaves
its end out, and so does numpy's `integers`: `randrange(1, Q)` never trains the last level. A level that
gives one code although a rest is left to quantize may have been started far from its residuals: start it
from the residuals of a batch once the levels before it are trained. A level without a rest to quantize
can be removed.

## References
- soundstream-pytorch#7: `randrange(1, Q)` never drew Q, so the last codebook was never trained
- facebookresearch/encodec#25, lucidrains/vector-quantize-pytorch#33: deeper levels without a gradient
"""

from vqdoctor.checks import _usage
from vqdoctor.checks._causes import BEFORE_USE
from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.checks._words import Problems, figure, measured, percent, problem, warning
from vqdoctor.core.check import Advice, CannotJudge, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import LevelUse, Usage
from vqdoctor.core.finding import Problem
from vqdoctor.core.levels import Confidence, Severity

CONSEQUENCES = ("VQ103", "VQ301", "VQ313", "VQ501", "VQ502", "VQ503")
"""Findings that codes without any training give."""


class Limits(CheckLimits):
    """When a level carries no information, and when a rest was left for it."""

    perplexity: float = limit(
        1.5,
        "Least perplexity of a level. Healthy deeper levels are flatter than the first and use most of "
        "their codes; 1.5 is a code for nine vectors of ten and another for the tenth.",
    )
    left: float = limit(
        0.05,
        "Least size of a level's input, as a share of the first level's spread, for its silence to be a "
        "fault. Levels of 16 codes on 8 dimensions leave 0.41 to 0.46, and 0.05 is 0.25 % of the variance.",
    )
    others_written: float = limit(
        1.0,
        "Least number of other levels whose counts must have moved, for an unmoved one to mean that the "
        "training left it out: a file that was saved before the first step has none.",
    )


def evaluate(level: LevelUse, usage: Usage | None, limits: Limits) -> Problems:
    """Ask whether the level was ever trained; then whether its codes differ."""
    if level.written is False and level.others_written < limits.others_written:
        return  # nothing was trained, which is another finding
    if level.written is False:
        start = "are the whole numbers of its initialisation" if level.placed else "have their start value"
        yield warning(
            f"Level {level.level} of {level.levels} was never trained: all of its EMA counts {start}, "
            f"while the counts of {level.others_written} other levels moved.",
            measured("others_written", level.others_written, limits.others_written, unit="levels"),
            explains=CONSEQUENCES,
        )
        return
    if level.level == 1:
        return  # its collapse is that of the whole codebook
    if usage is None:
        if level.written is None:
            raise CannotJudge("the level has no EMA counts, and its usage is unknown")
        return
    enough = _usage.effective_vectors(usage) >= _usage.PLENTY
    if usage.perplexity_high < limits.perplexity and enough:
        yield _silent(level, usage, limits)


def _silent(level: LevelUse, usage: Usage, limits: Limits) -> Problem:
    left = 0.0 if level.left is None else level.left
    spread = f"leave {percent(left)} of the first level's spread"
    if level.left is None:
        severity, why = Severity.WARNING, ""
    elif left < limits.left:
        severity, why = Severity.NOTE, f", since the levels before it {spread.replace('leave', 'leave only')}"
    else:
        severity, why = Severity.WARNING, f", although the levels before it {spread}"
    return problem(
        severity,
        f"Level {level.level} of {level.levels} gives one code for everything (perplexity "
        f"{figure(usage.perplexity)}){why}.",
        measured("perplexity", usage.perplexity, limits.perplexity, unit="codes"),
        confidence=Confidence.MEDIUM if level.left is None else Confidence.HIGH,
        decide_with="--data batch.npz" if level.left is None else "",
    )


CHECK = Check(
    code="VQ506",
    name="residual-level-unused",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="train-every-level",
        how="Draw the number of levels up to and including the last one, and train on; or remove the level.",
        code="keep = random.randrange(1, num_levels + 1)   # 1 … Q: the end is left out\n"
        "for level in levels[:keep]:\n    z_q = z_q + level(residual)",
    ),
    explained_by=BEFORE_USE,
    examples=(
        fires(
            "the last level was never drawn in training",
            LevelUse.healthy(level=4, written=False, left=0.2),
            Usage.healthy(perplexity=160.0),
        ),
        fires(
            "the last level was placed by the first evaluation, and never trained",
            LevelUse.healthy(level=4, written=False, placed=True, left=0.2),
            Usage.healthy(perplexity=230.0),
        ),
        fires("one code, with a rest left to quantize", LevelUse.healthy(), COLLAPSED_USAGE),
        fires("a superfluous level: no rest is left", LevelUse.healthy(left=0.004), COLLAPSED_USAGE),
        passes("a level that works", LevelUse.healthy(), Usage.healthy()),
        passes("an unfinished level", LevelUse.healthy(), Usage.healthy(perplexity=9.0, perplexity_high=9.4)),
        passes("a file saved before the first step", LevelUse.healthy(written=False, others_written=0)),
    ),
    doc=__doc__,
)
