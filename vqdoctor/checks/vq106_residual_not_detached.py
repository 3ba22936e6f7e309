"""The residual's codes are subtracted with their gradient.

## Why it matters
In a residual quantizer each level quantizes what the levels before it left over. If their codes are
subtracted with a straight-through gradient, the residual's gradient is 1 - 1 = 0: the commitment loss of
every level after the first is there, but moves no encoder, and the deeper levels run after it. If the
codes are detached and every level has a straight-through step of its own, the commitment is right, but
the task's gradient arrives once for each level: Q times.

## How to read it
A random gradient at a level's input is followed to the input of the first level: 1 where the codes are
detached, 0 where they are not. EnCodec and DAC were published with 0 and work, so it is a note unless
that level's usage is poor too; then it is a warning, and the likely cause, unless the VQ loss is a sum, which
is a likelier one (VQ204). The gain is the same from the
output of the whole to its input; Adam is indifferent to it, but it makes the VQ loss lighter than its weight
says, by the same factor. That is a note from ten levels on.

## Remedy
With `residual - z_q.detach()` the commitment loss of every level reaches the encoder. If every level
then keeps a straight-through step of its own, the task's gradient arrives once for each: Q times too
large. One step around the sum passes it once, as audiocraft and moshi do.

## References
- facebookresearch/encodec#25, descriptinc/descript-audio-codec#107: no gradient from level 2 on
- EdoardoBotta/RQ-VAE-Recommender#67: detaching multiplies the task's gradient by the number of levels
- audiocraft, moshi: detach, and one outer straight-through step
"""

from vqdoctor.checks import _reduction, _usage
from vqdoctor.checks._usage import COLLAPSED_USAGE
from vqdoctor.checks._words import Problems, figure, measured, note, percent, problem
from vqdoctor.core.check import Advice, Check, CheckLimits, fires, limit, passes
from vqdoctor.core.evidence import LossTerms, ResidualLevel, Usage
from vqdoctor.core.levels import Severity


class Limits(CheckLimits):
    """How much of a level's gradient must reach the encoder, and how often the task's may."""

    reach: float = limit(
        0.01,
        "Least share of a gradient at a level's input that must arrive at the first level's. Detached codes "
        "pass exactly 1 whatever the estimator; subtracted straight-through codes pass 0, up to rounding.",
    )
    gain: float = limit(
        10.0,
        "Largest factor on the task's gradient. It makes the VQ loss that many times lighter: at 10 the "
        "usual weight of 0.1 counts as 0.01, under all usual ones. Eight plain levels measured exactly 8.",
    )


def evaluate(level: ResidualLevel, usage: Usage | None, terms: LossTerms | None, limits: Limits) -> Problems:
    """Judge the way back from this level, and on the first level the gain of the whole."""
    if level.reach is not None and level.reach < limits.reach:
        is_summed = terms is not None and _reduction.summed(terms) is not None
        is_cause = usage is not None and _usage.poor(usage) and not is_summed
        yield problem(
            Severity.WARNING if is_cause else Severity.NOTE,
            f"Only {percent(level.reach)} of a gradient at residual level {level.level} of "
            f"{level.levels} reaches the encoder: the codes before it are subtracted without a detach, so "
            "its commitment loss has no effect.",
            measured("reach", level.reach, limits.reach),
            measured("level", level.level),
        )
    elif level.level == 1 and level.gain is not None and level.gain >= limits.gain:
        yield note(
            f"The {level.levels} residual levels multiply the task's gradient by "
            f"{figure(level.gain)}, which makes the VQ loss as much lighter than its weight says.",
            measured("gain", level.gain, limits.gain),
            measured("levels", level.levels),
        )


CHECK = Check(
    code="VQ106",
    name="residual-not-detached",
    evaluate=evaluate,
    limits=Limits(),
    advice=Advice(
        name="detach-residual",
        how="Detach the codes before they are subtracted from the residual, and put one straight-through "
        "step around all levels.",
        code="residual = residual - z_q.detach()\n"
        "total = total + z_q\n"
        "out = z_e + (total - z_e).detach()   # once, after the last level",
        in_source=True,
    ),
    examples=(
        fires("level 2 cut off and collapsed", ResidualLevel.healthy(reach=0.0, gain=1.0), COLLAPSED_USAGE),
        fires("level 2 cut off but working", ResidualLevel.healthy(reach=0.0, gain=1.0), Usage.healthy()),
        fires("twelve levels, each straight-through", ResidualLevel.healthy(level=1, levels=12, gain=12.0)),
        passes("detached, one step around all", ResidualLevel.healthy(), Usage.healthy()),
        passes("levels that look up a detached residual", ResidualLevel.healthy(reach=None)),
        passes("four levels, each straight-through", ResidualLevel.healthy(level=1, gain=4.0)),
    ),
    doc=__doc__,
)
