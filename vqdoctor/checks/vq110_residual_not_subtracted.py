"""The levels of a residual quantizer do not get what all levels before them left.

## Why it matters
Each level must quantize what the levels before it left over. Where the codes are not subtracted, every
level approximates the whole vector. The sum of their codes is as many times too long, and their mean is
one rough code again. The model trains all the same, since the first layer behind can divide a sum, but
further levels add hardly anything. Where only the codes of the level before are subtracted, from the whole
vector each time, levels 1 and 3 approximate the same part, and so do 2 and 4.

## How to read it
With a model and data: the inputs of all levels hold the same numbers, or each is that of the level before it
plus its codes, and not minus them, or each is that of the first minus the codes of the level before it alone;
and a module behind the levels gets the sum or the mean of their codes.
Both must hold: codebooks that each quantize the same vector for themselves, and whose codes are put side by
side, are made so on purpose. Codebooks that see it through a map or logits of their own are as well: they do
not choose the code nearest to the common input, and the sum of such codes is meant.

## Remedy
subtract-codes: `residual = residual - z_q.detach()` after each level, and not `z_e - z_q.detach()`.

## References
- Zeghidour et al. 2021, SoundStream, arXiv:2107.03312, algorithm 1: residual vector quantization
- Measured: codecs of waves with three levels lost 7 times as much of them as with the subtraction where the
  codes were added, and 3.4 times as much where their mean was taken; one with four levels 1.08 and 1.19 times
  (two seeds) where each residual was taken from z_e
"""

from vqdoctor.checks._words import Problems, error, measured
from vqdoctor.core.check import Advice, Check, CheckLimits, fires, passes
from vqdoctor.core.evidence import ResidualLevel


def evaluate(level: ResidualLevel, limits: CheckLimits) -> Problems:
    """Fire on the levels after the first."""
    if level.subtracted or level.level == 1:
        return
    if level.added:
        yield error(
            f"Residual level {level.level} of {level.levels} gets the input of level {level.level - 1} plus "
            "the codes that this one chose: they are added where they have to be subtracted.",
            measured("level", level.level),
        )
    elif level.last_only:
        if level.level > 2:  # the second gets what it should
            yield error(
                f"Residual level {level.level} of {level.levels} gets the input of level 1 minus the codes "
                f"of level {level.level - 1} alone: each residual is taken from z_e, and not from the one "
                "before it.",
                measured("level", level.level),
            )
    else:
        yield error(
            f"Residual level {level.level} of {level.levels} gets the very input of level 1, and the model "
            f"goes on with the {level.joined} of their codes: the codes before it are not subtracted.",
            measured("level", level.level),
        )


CHECK = Check(
    code="VQ110",
    name="residual-not-subtracted",
    evaluate=evaluate,
    advice=Advice(
        name="subtract-codes",
        how="Subtract the codes of each level from the input of the next, without their gradient.",
        code="residual = residual - z_q.detach()",
    ),
    examples=(
        fires("level 2 gets the input of level 1", ResidualLevel.healthy(subtracted=False)),
        fires("the mean instead of the sum", ResidualLevel.healthy(subtracted=False, joined="mean")),
        fires(
            "level 3 gets the first input minus the codes of level 2 alone",
            ResidualLevel.healthy(level=3, subtracted=False, last_only=True),
        ),
        passes(
            "level 2 of the same gets what it should",
            ResidualLevel.healthy(subtracted=False, last_only=True),
        ),
        fires("the codes are added", ResidualLevel.healthy(subtracted=False, added=True)),
        passes("level 2 gets what level 1 left", ResidualLevel.healthy()),
        passes("the first level", ResidualLevel.healthy(level=1, subtracted=False)),
    ),
    doc=__doc__,
)
